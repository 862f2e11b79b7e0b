# SPDX-License-Identifier: Apache-2.0
"""fedefm_core predict: images in, masks, overlays and tips out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedefm_core.cli.main import app

if TYPE_CHECKING:
    from fedefm_core.cli.predictions import PredictionWriter
    from fedefm_core.evaluation.frame_names import NamedFrame
    from fedefm_core.perception import Segmenter

Skipped = list[tuple[Path, str]]


@app.command()
def predict(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Image, cine, video, recording or folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; must be empty or new.")],
    model: Annotated[
        str | None, typer.Option(help="Path or shipped name; default: the shipped model.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, ...")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="0: the runtime's own choice.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier predict wrote to OUT.")
    ] = False,
) -> None:
    """Segment instruments and find their tips in a file or a folder of files.

    Writes STEM_mask.png (0 background, 1 catheter, 2 guidewire), STEM_overlay.png and one
    predictions.jsonl; STEM_0001_mask.png and on for a file of several frames. Files that cannot
    be read are set aside and listed at the end; exit code 1 when nothing could be processed.
    """
    from fedefm_core.cli.predictions import PredictionWriter, check_output_folder
    from fedefm_core.cli.progress import expected_frames, progress
    from fedefm_core.errors import FrameError
    from fedefm_core.evaluation.frame_names import named_frames
    from fedefm_core.frames import open_source
    from fedefm_core.perception import Segmenter, open_runtime

    check_output_folder(out, overwrite)
    frames = open_source(source)
    check_input_folder(frames.path, out)
    segmenter = Segmenter(open_runtime(model, runtime, threads))
    segmenter.warm_up()
    named = named_frames(frames)
    first = next(named, None)  # fails before the output folder is made if nothing can be read
    if first is None:
        raise FrameError(f"{frames.name} holds no frames")
    set_aside: Skipped = []
    with PredictionWriter(out, overwrite) as writer:
        try:
            total = expected_frames(frames)
            for frame in progress(chain([first], named), "Predicting", total):
                predict_frame(frame, segmenter, writer, set_aside)
        finally:
            typer.echo(f"{writer.frames} frames written to {out}")
            report_skipped(frames.skipped + set_aside)
    if not writer.frames:
        raise typer.Exit(1)


def predict_frame(
    named: NamedFrame, segmenter: Segmenter, writer: PredictionWriter, set_aside: Skipped
) -> None:
    """Process and write one frame; one that perception refuses goes to set_aside."""
    from fedefm_core.cli.predictions import frame_row
    from fedefm_core.errors import FrameError
    from fedefm_core.frames import to_grey8
    from fedefm_core.perception import draw_overlay

    if named.first:  # what was tracked in another file says nothing of this one
        segmenter.reset()
    try:
        perception = segmenter.process(named.frame)
        overlay = draw_overlay(to_grey8(named.frame), perception)
    except FrameError as error:
        set_aside.append((Path(named.frame.source), str(error)))
        return
    metadata = segmenter.runtime.metadata
    model = f"{metadata.name}@{metadata.weights_sha256[:12]}"
    row = frame_row(named.frame.source, named.frame.index + 1, perception, model)
    writer.write(named.name, row, perception.label_map, overlay)


def check_input_folder(path: Path, out: Path) -> None:
    """Raise OutputError where results of two inputs, or inputs and results, would collide."""
    from fedefm_core.errors import OutputError
    from fedefm_core.evaluation.frame_names import file_stem, find_clash
    from fedefm_core.frames.source import image_files

    if not path.is_dir():
        return
    if out.resolve() == path.resolve():
        raise OutputError(f"The results must go to another folder than the images, {path}")
    clash = find_clash(image_files(path))
    if clash is not None:
        raise OutputError(
            f"{clash[0].name} and {clash[1].name} in {path} would both be written as "
            f"{file_stem(clash[1])}_mask.png; rename one, or predict them into two folders. "
            "Nothing was written."
        )


def report_skipped(skipped: Sequence[tuple[Path, str]]) -> None:
    """List files that were set aside, with reasons, on stderr."""
    if skipped:
        typer.echo(f"Set aside ({len(skipped)}):", err=True)
    for path, reason in skipped:
        typer.echo(f"  {path}: {reason}", err=True)
