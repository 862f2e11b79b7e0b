# SPDX-License-Identifier: Apache-2.0
"""fedefm_core experiment: a study, made again from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedefm_core.cli.main import app

if TYPE_CHECKING:
    from fedefm_core.experiments.study import Result

STUDIES = ("downstream", "real_images", "simulator_ablation", "unseen")


@app.command()
def experiment(
    config: Annotated[Path, typer.Argument(help="YAML file of a study: config/experiments/*.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    model: Annotated[
        str | None,
        typer.Option(help="real_images: a path or a shipped model; default: the shipped default."),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="real_images: auto, openvino, onnxruntime, torch.")
    ] = "auto",
    page: Annotated[
        Path | None,
        typer.Option(help="Write report.md here too, its pictures in images/ beside it."),
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: tolerance_px=3.")
    ] = None,
) -> None:
    """Run a study, the one that the configuration's key 'study' names.

    Writes report.json, report.md and pictures to OUT. A long study goes on where it was.
    """
    from fedefm_core.cli.report import print_table, write_json, write_text
    from fedefm_core.experiments.study import markdown, write_page

    name = _study_name(config)
    overrides = override or []
    try:
        if name == "simulator_ablation":
            result = _simulator_ablation(config, out, overrides)
        elif name == "downstream":
            result = _downstream(config, out, overrides)
        elif name == "unseen":
            result = _unseen(config, out, overrides)
        else:
            result = _real_images(config, out, overrides, model, runtime)
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. To go on: fedefm_core experiment {config} --out {out}")
        raise typer.Exit(130) from None
    write_json(result.report, out / "report.json")
    command = " ".join(
        [
            "fedefm_core experiment",
            str(config),
            "--out",
            str(out),
            *(f"--set {o}" for o in overrides),
        ]
    )
    write_text(markdown(result, out, command), out / "report.md")
    if page is not None:
        write_page(result, page, command)
    for rows in result.tables.values():
        print_table(rows)
    typer.echo(f"All figures: {out / 'report.json'}; the page: {out / 'report.md'}")


def _study_name(config: Path) -> str:
    from difflib import get_close_matches

    from pydantic import ConfigDict

    from fedefm_core.config import Settings, load_settings
    from fedefm_core.errors import ConfigError

    class Named(Settings):
        model_config = ConfigDict(extra="ignore")
        study: str = ""

    name = load_settings(Named, config).study
    if name in STUDIES:
        return name
    known = f"there is: {', '.join(STUDIES)}"
    if not name:
        raise ConfigError(f"{config} must name its study with the key 'study'; {known}")
    nearest = get_close_matches(name, STUDIES, n=1, cutoff=0.4)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    raise ConfigError(f"In {config}: '{name}' is no known study; {known}{hint}")


def _simulator_ablation(config: Path, out: Path, overrides: list[str]) -> Result:
    from fedefm_core.config import load_settings
    from fedefm_core.experiments import simulator_ablation as study

    settings = load_settings(study.SimulatorAblationSettings, config, overrides)
    return study.simulator_ablation(settings, out, lambda line: typer.echo(line, err=True))


def _downstream(config: Path, out: Path, overrides: list[str]) -> Result:
    from fedefm_core.config import load_settings
    from fedefm_core.experiments import downstream as study

    settings = load_settings(study.DownstreamSettings, config, overrides)
    return study.downstream(settings, out, lambda line: typer.echo(line, err=True))


def _unseen(config: Path, out: Path, overrides: list[str]) -> Result:
    from fedefm_core.config import load_settings
    from fedefm_core.errors import ConfigError
    from fedefm_core.experiments import unseen as study
    from fedefm_core.experiments.unseen_report import report

    try:
        settings = load_settings(study.UnseenSettings, config, overrides)
        outcome = study.run_unseen(settings, out, lambda line: typer.echo(line, err=True))
    except ConfigError as error:  # nothing was written
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from None
    return report(settings, outcome, out)


def _real_images(
    config: Path, out: Path, overrides: list[str], model: str | None, runtime: str
) -> Result:
    from fedefm_core.config import load_settings
    from fedefm_core.experiments import real_images as study
    from fedefm_core.perception import Segmenter, open_runtime

    settings = load_settings(study.RealImagesSettings, config, overrides)
    return study.result(settings, Segmenter(open_runtime(model, runtime)), out)
