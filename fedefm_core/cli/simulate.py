# SPDX-License-Identifier: Apache-2.0
"""fedefm_core simulate: X-ray images with exact truth, from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.main import app


@app.command()
def simulate(
    out: Annotated[
        Path, typer.Option(help="Folder: new, empty, or of the same run begun before.")
    ],
    count: Annotated[int, typer.Option(min=1, help="Number of frames.")],
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal bytes.")],
    kind: Annotated[
        str | None,
        typer.Option(
            help="human, animal, phantom, simulation, or each in turn; default: a mixture."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the images in pixels; default: 512.")
    ] = None,
    bit_depth: Annotated[int | None, typer.Option(help="8, 12 or 16; default: 8.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML with a section 'simulation': real backgrounds, for example."),
    ] = None,
    sequence: Annotated[
        bool, typer.Option("--sequence", help="The frames of one insertion, at 30 Hz.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that draw; 0: one for each processor.")
    ] = 0,
) -> None:
    """Draw X-ray images of guidewires and catheters with exact truth.

    Writes OUT/images/NAME.png, OUT/masks/NAME.png (0 background, 1 catheter, 2 guidewire),
    OUT/truth.json (kinds, centerlines, tips) and OUT/contact_sheet.png. A run that was
    interrupted goes on where it ended when it is started again with the same options.
    """
    from fedefm_core.cli.progress import progress
    from fedefm_core.config import load_settings
    from fedefm_core.provenance import usable_cpus
    from fedefm_core.simulation.dataset import DatasetPlan, write_dataset
    from fedefm_core.simulation.settings import SimulationFile

    options = {"size": size, "bit_depth": bit_depth}
    given = [f"simulation.{key}={value}" for key, value in options.items() if value is not None]
    settings = load_settings(SimulationFile, config, given).simulation
    plan = DatasetPlan(seed, count, settings, kind, sequence)
    frames = write_dataset(plan, out, workers or usable_cpus())
    drawn = sum(progress(frames, "Simulating", count))
    typer.echo(f"{drawn} frames drawn, {count - drawn} were there already: {out}")
