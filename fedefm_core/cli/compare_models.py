# SPDX-License-Identifier: Apache-2.0
"""fedefm_core compare-models: two models on the same images with masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedefm_core.cli.evaluate import check_names
from fedefm_core.cli.main import app
from fedefm_core.cli.options import Images, Masks, Overrides, Truth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedefm_core.evaluation.dataset import GroundTruth
    from fedefm_core.perception import Segmenter


@app.command("compare-models")
def compare_models(
    model: Annotated[str, typer.Argument(help="Path or shipped name.")],
    against: Annotated[str, typer.Argument(help="The other one; differences are this - MODEL.")],
    images: Images,
    masks: Masks,
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    runtime: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, ...")] = "auto",
    truth: Truth = None,
    metric: Annotated[
        str, typer.Option(help="By which the contact sheet chooses its frames.")
    ] = "foreground_dice",
    frames: Annotated[int, typer.Option(min=1, help="On the contact sheet.")] = 8,
    override: Overrides = None,
) -> None:
    """Compare two models frame by frame: differences, a paired test, where they differ most."""
    from fedefm_core.cli.progress import expected_frames, progress
    from fedefm_core.cli.report import check_report_path, print_table, write_json
    from fedefm_core.config import load_settings
    from fedefm_core.errors import ConfigError, FrameError
    from fedefm_core.evaluation.comparison import METRICS, compare, most_different
    from fedefm_core.evaluation.dataset import (
        evaluation_report,
        open_ground_truth,
        score_frames,
    )
    from fedefm_core.evaluation.evaluate import EvaluationSettings
    from fedefm_core.evaluation.frame_names import named_frames
    from fedefm_core.frames import open_source
    from fedefm_core.perception import Segmenter, open_runtime

    settings = load_settings(EvaluationSettings, overrides=override or [])
    if metric not in METRICS:
        raise ConfigError(f"'{metric}' is no metric of a frame; there is: {', '.join(METRICS)}")
    check_report_path(out / "comparison.json")
    ground_truth = open_ground_truth(masks, truth)
    source = open_source(images)
    check_names(images)
    segmenters = [Segmenter(open_runtime(name, runtime)) for name in (model, against)]
    scores = []
    for number, segmenter in enumerate(segmenters, start=1):
        named = progress(named_frames(source), f"Model {number} of 2", expected_frames(source))
        scores.append(list(score_frames(named, segmenter, ground_truth, settings)))
        if not scores[-1]:
            raise FrameError(f"{source.name} holds no frames")
    reports = [
        evaluation_report(of_one, segmenter, ground_truth, settings)
        for of_one, segmenter in zip(scores, segmenters, strict=True)
    ]
    compared = compare(scores[0], scores[1], settings)
    print_table(_table(compared))
    write_json(
        {
            "images": str(images),
            "masks": str(masks),
            "models": [report["model"] for report in reports],
            "metrics": compared,
            "provenance": reports[0]["provenance"],
        },
        out / "comparison.json",
    )
    for name, report in zip(("first", "second"), reports, strict=True):
        write_json(report, out / f"{name}.json")
    chosen = most_different(scores[0], scores[1], metric, frames)
    names = [scores[0][index].name for index in chosen]
    sheet = out / "contact_sheet.png"
    _draw(names, named_frames(source), segmenters, ground_truth, sheet)
    typer.echo(f"All figures: {out / 'comparison.json'}; where they differ most: {sheet}")


def _table(compared: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("metric", "n", "first", "second", "difference", "p", "better")]
    for name, values in compared.items():
        if values["n"] == 0:
            rows.append((name, "0", "-", "-", "-", "-", "-"))
            continue
        bounds = values["difference_interval"]
        interval = "" if bounds is None else " [{:+.3f} {:+.3f}]".format(*bounds)
        rows.append(
            (
                name,
                str(values["n"]),
                f"{values['first']:.3f}",
                f"{values['second']:.3f}",
                f"{values['difference']:+.3f}{interval}",
                f"{values['p']:.4f}",
                f"{values['first_better']} : {values['second_better']}",
            )
        )
    return rows


def _draw(
    names: Sequence[str],
    frames: Any,
    segmenters: Sequence[Segmenter],
    ground_truth: GroundTruth,
    path: Path,
) -> None:
    """The contact sheet of the frames of these names, in their order."""
    from fedefm_core.errors import OutputError
    from fedefm_core.evaluation.dataset import look
    from fedefm_core.evaluation.report_plots import draw_differences
    from fedefm_core.evaluation.truth import read_mask
    from fedefm_core.frames import to_grey8

    rows = {}
    for named in frames:
        if named.name in names:
            grey = to_grey8(named.frame)
            shape = (grey.shape[0], grey.shape[1])
            maps = [look(segmenter, named.frame).label_map for segmenter in segmenters]
            mask = read_mask(ground_truth.masks, named.name, shape)
            rows[named.name] = (named.name, grey, [mask, *maps])
    if not rows:
        return
    titles = ["truth", *(segmenter.runtime.metadata.name for segmenter in segmenters)]
    try:
        draw_differences([rows[name] for name in names], titles, path)
    except OSError as error:
        raise OutputError(f"Cannot write the contact sheet {path}: {error.strerror}") from error
