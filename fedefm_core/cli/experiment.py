# SPDX-License-Identifier: Apache-2.0
"""fedefm_core experiment: a study, made again from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.main import app


@app.command()
def experiment(
    config: Annotated[Path, typer.Argument(help="YAML file of a study: config/experiments/*.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    model: Annotated[
        str | None, typer.Option(help="A path or a shipped model; default: the shipped default.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, torch.")] = "auto",
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: tolerance_px=3.")
    ] = None,
) -> None:
    """Run a study; writes report.json and pictures to OUT."""
    from fedefm_core.cli.report import print_table, write_json
    from fedefm_core.config import load_settings
    from fedefm_core.experiments import real_images as study
    from fedefm_core.perception import Segmenter, open_runtime
    from fedefm_core.provenance import provenance

    settings = load_settings(study.RealImagesSettings, config, override or [])
    segmenter = Segmenter(open_runtime(model, runtime))
    report = study.real_images(settings, segmenter, out)
    report["model"] = segmenter.runtime.metadata.name
    report["weights_sha256"] = segmenter.runtime.metadata.weights_sha256
    report["provenance"] = provenance(settings)
    write_json(report, out / "report.json")
    print_table(study.table(report))
    typer.echo(f"All figures: {out / 'report.json'}; overlays beside it.")
