# SPDX-License-Identifier: Apache-2.0
"""fedefm_core pretrain: a foundation model over silos that never show each other an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedefm_core.cli.interrupted import how_to_resume
from fedefm_core.cli.main import app

if TYPE_CHECKING:
    from fedefm_core.federation.settings import PretrainSettings


@app.command()
def pretrain(
    config: Annotated[
        list[Path], typer.Argument(help="YAML files of settings; later ones add to earlier ones.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    resume: Annotated[bool, typer.Option(help="Go on with the run in that folder.")] = False,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting: algorithm.merge_guests=0."),
    ] = None,
) -> None:
    """Train one foundation model over many silos; interrupt and resume at any time."""
    from fedefm_core.cli.progress import progress
    from fedefm_core.config import load_settings
    from fedefm_core.errors import ConfigError
    from fedefm_core.federation.run import pretrain
    from fedefm_core.federation.settings import PretrainSettings

    try:
        settings = load_settings(PretrainSettings, config, override or [])
        summary = pretrain(beside(settings, config[0]), out, resume, progress)
    except ConfigError as error:  # nothing was written
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise how_to_resume("pretrain", config, out, override) from None
    totals = summary.totals
    typer.echo(
        f"Θ after {summary.rounds} rounds: accuracy {summary.theta['accuracy']:.3f} over all "
        f"images; {sum(totals.steps.values())} gradient steps, {totals.bytes / 1e6:.1f} MB sent, "
        f"{totals.simulated_ms / 1e3:.1f} s simulated, {totals.seconds:.0f} s taken"
    )
    for corpus, accuracy in summary.theta["by_corpus"].items():
        typer.echo(f"  {corpus}: {accuracy:.3f}")
    typer.echo(f"Foundation: {summary.foundation}")
    typer.echo(f"Curves: tensorboard --logdir {out / 'tensorboard'}")


def beside(settings: PretrainSettings, config: Path) -> PretrainSettings:
    """The settings, with a relative path of the manifest taken from the folder of the config."""
    corpora = settings.corpora
    if corpora.manifest is None:
        return settings
    manifest = config.absolute().parent / corpora.manifest
    moved = corpora.model_copy(update={"manifest": manifest})
    return settings.model_copy(update={"corpora": moved})
