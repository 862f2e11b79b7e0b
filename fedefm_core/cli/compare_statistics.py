# SPDX-License-Identifier: Apache-2.0
"""fedefm_core compare-statistics: do simulated images look like real ones, in numbers?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedefm_core.cli.main import app

if TYPE_CHECKING:
    from fedefm_core.frames import FrameSource
    from fedefm_core.simulation.statistics import ImageStatistics


@app.command()
def compare_statistics(
    simulated: Annotated[
        Path, typer.Argument(help="Simulated images: a folder of 'simulate', or any images.")
    ],
    real: Annotated[Path, typer.Argument(help="Real images: a folder, or a cine.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for statistics.json and statistics.png.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Measure the first so many of each; 0: all.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the classifier's split into folds.")] = 0,
) -> None:
    """Compare grey levels, noise power, gradients, edge widths and ridges of two sets of images.

    A small classifier tries to tell the sets apart: AUC 0.5 means that it cannot, 1 that it
    always can. The table names the numbers that differ most.
    """
    from fedefm_core.cli.report import check_report_path, print_table, write_json
    from fedefm_core.frames import open_source
    from fedefm_core.provenance import provenance
    from fedefm_core.simulation.comparison import compare, largest_gaps

    if out is not None:
        check_report_path(out / "statistics.json")
    folders = {"simulated": simulated, "real": real}
    sources = {name: open_source(_images_of(path)) for name, path in folders.items()}
    skipped: list[str] = []
    sets = {name: _measure(source, limit, name, skipped) for name, source in sources.items()}
    report = compare(sets["simulated"], sets["real"], seed)
    typer.echo(f"{len(sets['simulated'])} simulated and {len(sets['real'])} real images")
    print_table(_area_table(report["auc"]))
    print_table(_gap_table(largest_gaps(report)))
    for reason in skipped:
        typer.echo(f"Set aside: {reason}", err=True)
    if out is None:
        return
    report = {
        "simulated": str(simulated),
        "real": str(real),
        "set_aside": skipped,
        **report,
        "provenance": provenance(seed=seed),
    }
    write_json(report, out / "statistics.json")
    _draw(sets, report, out / "statistics.png")
    typer.echo(f"All figures and plots: {out}")


def _images_of(path: Path) -> Path:
    """The images of a folder that 'simulate' wrote; anything else as it is."""
    return path / "images" if (path / "truth.json").is_file() else path


def _measure(
    source: FrameSource, limit: int, name: str, skipped: list[str]
) -> list[ImageStatistics]:
    """Statistics of every image; what cannot be read or measured goes to skipped instead."""
    from itertools import islice

    from fedefm_core.cli.progress import expected_frames, progress
    from fedefm_core.errors import FrameError
    from fedefm_core.frames import to_grey8
    from fedefm_core.simulation.comparison import require_enough
    from fedefm_core.simulation.statistics import measure

    expected = expected_frames(source)
    total = min(limit, expected) if limit and expected else expected
    measured = []
    for frame in progress(islice(source, limit or None), f"Measuring {name}", total):
        try:
            measured.append(measure(to_grey8(frame)))
        except FrameError as error:
            skipped.append(f"{frame.source}: {error}")
    skipped.extend(f"{file}: {reason}" for file, reason in source.skipped)
    require_enough(len(measured), name)
    return measured


def _draw(sets: dict[str, list[ImageStatistics]], report: dict[str, Any], path: Path) -> None:
    from fedefm_core.errors import OutputError
    from fedefm_core.simulation.comparison_plots import draw_comparison

    try:
        draw_comparison(sets, report, path)
    except OSError as error:
        raise OutputError(f"Cannot write the plots {path}: {error.strerror}") from error


def _area_table(areas: dict[str, float]) -> list[tuple[str, ...]]:
    return [("told apart by", "AUC"), *((group, f"{area:.3f}") for group, area in areas.items())]


def _gap_table(gaps: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, ...]]:
    header = ("largest differences, medians", "simulated", "real", "KS", "shift")
    rows = [
        (
            name,
            *(f"{gap[side][len(gap[side]) // 2]:.2f}" for side in ("simulated", "real")),
            f"{gap['ks']:.2f}",
            f"{gap['shift']:+.1f} sd",
        )
        for name, gap in gaps
    ]
    return [header, *rows]
