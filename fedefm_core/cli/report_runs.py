# SPDX-License-Identifier: Apache-2.0
"""fedefm_core report: training runs and evaluations as one page for people."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.main import app


@app.command("report")
def report(
    run: Annotated[
        list[Path],
        typer.Argument(help="Folders of finetune or distill runs, and reports of evaluate."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of report.html and of plots/.")],
    examples: Annotated[
        int, typer.Option(min=0, max=12, help="Image examples of each training run.")
    ] = 4,
) -> None:
    """Write one HTML file with tables, plots and image examples, and the plots as PNG and PDF."""
    from fedefm_core.cli.progress import progress
    from fedefm_core.cli.report import check_report_path
    from fedefm_core.errors import OutputError
    from fedefm_core.evaluation.html_report import write_report
    from fedefm_core.evaluation.run_records import read_records

    records = read_records(run)
    check_report_path(out / "report.html")
    pictures = {}
    trainings = [record for record in records if record.is_training]
    if examples and trainings:
        from fedefm_core.finetuning.examples import run_examples

        for record in progress(trainings, "Image examples", len(trainings)):
            pictures[record.name] = run_examples(record.path, examples)
    options = ["--out", str(out), "--examples", str(examples)]
    command = shlex.join(["fedefm_core", "report", *map(str, run), *options])
    try:
        page = write_report(records, pictures, out, command)
    except OSError as error:
        raise OutputError(f"Cannot write to {out}: {error.strerror or error}") from error
    typer.echo(f"Report: {page}; plots as PNG and PDF: {out / 'plots'}")
