# SPDX-License-Identifier: Apache-2.0
"""fedefm_core check: every file of a manifest of corpora, before anything trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.main import app


@app.command()
def check(
    manifest: Annotated[
        Path | None, typer.Argument(help="YAML file; default: the embedded simulated corpora.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: partition.unseen=0.5.")
    ] = None,
) -> None:
    """Read every file of corpora and silos: counts, sizes, broken files, duplicates, balance.

    Exit code 0: all is fit for training. 1: files are broken, or the same pixels lie in several
    splits, silos or labels. 2: the manifest itself is wrong, and nothing was read or written.
    """
    from fedefm_core.cli.progress import progress
    from fedefm_core.cli.report import check_report_path, print_table, write_json
    from fedefm_core.corpora.check import check_corpora, corpus_table, details, silo_table
    from fedefm_core.corpora.manifest import load_manifest

    settings = load_manifest(manifest, override or [])
    if json is not None:
        check_report_path(json)
    report = check_corpora(settings, progress)
    print_table(corpus_table(report))
    print_table(silo_table(report))
    for line in details(report):
        typer.echo(line)
    if json is not None:
        write_json(report, json)
        typer.echo(f"All figures and every finding: {json}")
    for fault in report["faults"]:
        typer.secho(f"Fault: {fault}", fg=typer.colors.RED, err=True)
    if report["faults"]:
        raise typer.Exit(1)
    typer.echo("Fit for training.")
