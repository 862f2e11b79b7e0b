# SPDX-License-Identifier: Apache-2.0
"""fedefm_core distill: fine-tuned segmenters into the real-time network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.interrupted import how_to_resume
from fedefm_core.cli.main import app


@app.command()
def distill(
    config: Annotated[
        list[Path], typer.Argument(help="YAML files of settings; later ones add to earlier ones.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a finetune run, or its weights; may be given several times."),
    ] = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(help="Frames without labels: a file or folder; may be given several times."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in that folder.")] = False,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting: temperature=3."),
    ] = None,
) -> None:
    """Train a student on what its teachers say; interrupt and resume at any time."""
    from fedefm_core.config import load_settings
    from fedefm_core.finetuning import DistillSettings, distill

    overrides = list(override or [])
    overrides += _named("teachers", teacher) + _named("unlabelled", unlabelled)
    settings = load_settings(DistillSettings, config, overrides)
    try:
        best = distill(settings, out, resume)
    except KeyboardInterrupt:
        raise how_to_resume("distill", config, out, overrides) from None
    typer.echo(f"Best weights: {best}")
    typer.echo(f"Curves: tensorboard --logdir {out / 'tensorboard'}")


def _named(key: str, paths: Sequence[Path] | None) -> list[str]:
    """An override of a list of paths; a JSON list is YAML, whatever is in it."""
    return [f"{key}={json.dumps([str(path) for path in paths])}"] if paths else []
