# SPDX-License-Identifier: Apache-2.0
"""fedefm_core finetune: train a segmenter or a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.interrupted import how_to_resume
from fedefm_core.cli.main import app


@app.command()
def finetune(
    config: Annotated[
        list[Path], typer.Argument(help="YAML files of settings; later ones add to earlier ones.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    init: Annotated[
        Path | None,
        typer.Option(help="Weights to start from: a foundation, an earlier run, CLIP, SAM, ..."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in that folder.")] = False,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting: optimiser.learning_rate=1e-3."),
    ] = None,
) -> None:
    """Train a segmenter or a classifier; interrupt and resume at any time."""
    from fedefm_core.finetuning import finetune, load_run_settings

    overrides = list(override or [])
    if init is not None:
        quoted = json.dumps(str(init))  # a JSON string is YAML, whatever is in it
        overrides.append(f"init={quoted}")
    settings = load_run_settings(config, overrides)
    try:
        best = finetune(settings, out, resume)
    except KeyboardInterrupt:
        raise how_to_resume("finetune", config, out, overrides) from None
    typer.echo(f"Best weights: {best}")
    typer.echo(f"Curves: tensorboard --logdir {out / 'tensorboard'}")
