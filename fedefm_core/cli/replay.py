# SPDX-License-Identifier: Apache-2.0
"""fedefm_core replay: a recording of the robot's day through any model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedefm_core.cli.main import app

if TYPE_CHECKING:
    from fedefm_core.evaluation.replay import Replay

REPORT = "replay.json"


@app.command()
def replay(
    bag: Annotated[
        Path, typer.Argument(metavar="BAG", help="Recording of rosbag2: a folder, MCAP or SQLite.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; must be empty or new.")],
    model: Annotated[
        str | None, typer.Option(help="Path or shipped name; default: the shipped model.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic of the images; default: the only one.")
    ] = None,
    worst: Annotated[int, typer.Option(min=0, max=100, help="Frames to draw.")] = 6,
    runtime: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, ...")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="0: the runtime's own choice.")] = 0,
) -> None:
    """Re-run the images of a recording, and show what would have been told differently.

    Writes replay.json (figures, and a row for each image), replay.png (over time) and
    worst_01.png and on: the images that differ most, as recorded on the left, replayed on the
    right.
    """
    from fedefm_core.cli.predictions import check_output_folder
    from fedefm_core.cli.progress import progress
    from fedefm_core.errors import FrameError
    from fedefm_core.evaluation.replay import Replay, choose_topics
    from fedefm_core.evaluation.replay import replay as replayed
    from fedefm_core.frames.bag import count_messages
    from fedefm_core.perception import Segmenter, open_runtime

    check_output_folder(out)
    topics = choose_topics(bag, topic)
    total = count_messages(bag, topics.image)
    segmenter = Segmenter(open_runtime(model, runtime, threads))
    segmenter.warm_up()
    result = Replay()
    steps = replayed(bag, segmenter, topics, result, worst)
    for _ in progress(steps, "Replaying", total):
        pass
    if not result.differences:
        raise FrameError(f"{bag} holds no images on '{topics.image}'")
    about = segmenter.runtime.metadata
    write(result, out, {"recording": str(bag), "model": about.name, "topic": topics.image})


def write(result: Replay, out: Path, about: dict[str, Any]) -> None:
    """Write all results and print the table."""
    import numpy as np

    from fedefm_core.cli.predictions import write_png
    from fedefm_core.cli.report import write_json
    from fedefm_core.evaluation.replay import summarise
    from fedefm_core.evaluation.replay_plot import draw_replay
    from fedefm_core.provenance import provenance

    summary = summarise(result.differences)
    rows = [row(one) for one in result.differences]
    report = {**about, **summary, **provenance(), "frames": rows}
    write_json(report, out / REPORT)
    draw_replay(result.differences, out / "replay.png")
    for number, one in enumerate(result.worst, start=1):
        both = np.hstack([one.recorded, one.replayed])
        write_png(out / f"worst_{number:02d}.png", both)
    show(summary, out, len(result.worst))


def row(one: Any) -> dict[str, Any]:
    """A line of the report."""
    return {
        "stamp_ns": one.stamp_ns,
        "seconds": round(one.seconds, 4),
        "changed_pixels_share": one.changed,
        "recorded_tips_px": one.recorded_tips,
        "replayed_tips_px": one.replayed_tips,
        "recorded_state": one.recorded_state,
        "replayed_state": one.replayed_state,
    }


def show(summary: dict[str, Any], out: Path, drawn: int) -> None:
    """Print the figures, and where the rest is."""
    from fedefm_core.cli.report import print_table

    rows = [("tip of", "both", "only recorded", "only replayed", "neither", "moved")]
    for kind, tips in summary["tips"].items():
        counts = (str(tips[n]) for n in ("both", "only_recorded", "only_replayed", "neither"))
        rows.append((kind, *counts, _words(tips["moved_px"], "px", 1.0)))
    typer.echo(f"{summary['images']} images, as recorded and as replayed")
    print_table(rows)
    changed = _words(summary["changed_pixels_share"], "%", 100.0)
    typer.echo(
        f"Labels that changed: {changed or 'no mask was recorded'}. "
        f"The state differs in {summary['state_differs']} images. "
        f"Look at {out}: replay.png, {drawn} worst frames, {REPORT}."
    )


def _words(quantiles: dict[str, float] | None, unit: str, factor: float) -> str:
    if quantiles is None:
        return ""
    values = ", ".join(f"{name} {factor * value:.2f}" for name, value in quantiles.items())
    return f"{values} {unit}"
