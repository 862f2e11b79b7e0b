# SPDX-License-Identifier: Apache-2.0
"""fedefm_core evaluate: metrics of a model on images with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedefm_core.cli.main import app
from fedefm_core.cli.options import Images, Masks, Overrides, Truth


@app.command()
def evaluate(
    images: Images,
    masks: Masks,
    json: Annotated[Path, typer.Option(help="Where to write the report.")],
    model: Annotated[
        str | None, typer.Option(help="Path or shipped name; default: the shipped model.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, ...")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="0: the runtime's own choice.")] = 0,
    truth: Truth = None,
    override: Overrides = None,
) -> None:
    """Measure overlap, centerlines, distances, calibration and tips; docs/metrics.md has all."""
    from fedefm_core.cli.progress import expected_frames, progress
    from fedefm_core.cli.report import check_report_path, write_json
    from fedefm_core.config import load_settings
    from fedefm_core.errors import FrameError
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
    check_report_path(json)
    ground_truth = open_ground_truth(masks, truth)
    frames = open_source(images)
    check_names(images)
    segmenter = Segmenter(open_runtime(model, runtime, threads))
    named = progress(named_frames(frames), "Evaluating", expected_frames(frames))
    scores = list(score_frames(named, segmenter, ground_truth, settings))
    if not scores:
        raise FrameError(f"{frames.name} holds no frames")
    report = {
        "images": str(images),
        "masks": str(masks),
        "truth": ground_truth.truth_file and str(ground_truth.truth_file),
        "set_aside": [f"{path}: {reason}" for path, reason in frames.skipped],
        **evaluation_report(scores, segmenter, ground_truth, settings),
    }
    show(report)  # first: it is not lost when the disk is full
    write_json(report, json)
    typer.echo(f"Means over frames [bootstrap interval]; all figures and every frame: {json}")


def check_names(images: Path) -> None:
    """Raise TruthError when a mask would belong to two images."""
    from fedefm_core.errors import TruthError
    from fedefm_core.evaluation.frame_names import find_clash
    from fedefm_core.frames.source import image_files

    clash = find_clash(image_files(images)) if images.is_dir() else None
    if clash is not None:
        raise TruthError(
            f"{clash[0].name} and {clash[1].name} in {images} have one name, so a mask would "
            "belong to both"
        )


def show(report: dict[str, Any]) -> None:
    """Print what a person wants to know first."""
    from fedefm_core.cli.report import print_table
    from fedefm_core.evaluation.tables import class_table, line_table, region_table, tip_table

    model, frames = report["model"], len(report["frames"])
    typer.echo(f"{model['name']} ({model['precision']}) on {model['runtime']}, {frames} frames")
    print_table(region_table(report["groups"]))
    print_table(class_table(report["groups"]))
    if report["no_tips_because"] is None:
        print_table(tip_table(report["groups"]))
        if report["groups"]["all"]["lines"] is not None:
            print_table(line_table(report["groups"]))
    else:
        typer.echo(f"No tip errors: {report['no_tips_because']}.")
    for reason in report["set_aside"]:
        typer.echo(f"Set aside: {reason}", err=True)
    if report["masks_without_image"]:
        typer.echo(f"Masks without image: {len(report['masks_without_image'])}", err=True)
