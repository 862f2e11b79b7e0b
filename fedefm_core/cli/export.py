# SPDX-License-Identifier: Apache-2.0
"""'fedefm_core export': trained weights to one self-describing ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.main import app


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Folder of a training run, or its weights.")],
    out: Annotated[Path, typer.Option(help="The model file to write, NAME.onnx.")],
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(help="Real images, unlabelled, to choose int8 ranges with.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: that of the file.")] = None,
    calibration_frames: Annotated[
        int, typer.Option(help="Simulated frames, and as many real ones.")
    ] = 128,
    parity_frames: Annotated[int, typer.Option(help="Simulated frames to compare on.")] = 100,
) -> None:
    """Write a model file, and a parity report beside it; fail when the model has drifted."""
    from fedefm_core.cli.report import print_table, write_json
    from fedefm_core.config import parse_settings
    from fedefm_core.export.model import ExportSettings, check_out, prepare, publish
    from fedefm_core.export.parity import table

    values = {
        "name": name or out.stem,
        "precision": precision,
        "calibration_folder": calibration,
        "calibration_frames": calibration_frames,
        "parity_frames": parity_frames,
    }
    settings = parse_settings(ExportSettings, values, where="the options of export")
    check_out(out)
    prepared = prepare(source, settings)
    write_json(prepared.report, out.with_suffix(".parity.json"))
    print_table(table(prepared.parities.values()))
    metadata = publish(prepared, out)
    typer.echo(f"{out}: {metadata.name}, {metadata.precision}, {out.stat().st_size} bytes")
