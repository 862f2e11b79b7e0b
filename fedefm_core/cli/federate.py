# SPDX-License-Identifier: Apache-2.0
"""fedefm_core federate: one foundation model over sites on many machines, by NVIDIA FLARE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedefm_core.cli.main import app

if TYPE_CHECKING:
    from fedefm_core.federation.flare.settings import ProjectSettings
    from fedefm_core.federation.flare.site_settings import SiteSettings

federate = typer.Typer(help="Train over sites on many machines.", no_args_is_help=True)
app.add_typer(federate, name="federate")

Configs = Annotated[list[Path], typer.Argument(help="YAML files of settings, as 'pretrain' has.")]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Override = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: rounds=3, transfer=bf16.")
]
Threads = Annotated[int | None, typer.Option(help="Threads of each site; all by default.")]
Project = Annotated[Path, typer.Argument(help="YAML file of the project.")]
Kit = Annotated[Path, typer.Option(help="The owner's start-up kit.")]
Job = Annotated[str, typer.Argument(help="Number of the job.")]


@federate.command()
def simulate(
    config: Configs, out: Out, override: Override = None, threads: Threads = None
) -> None:
    """Each silo of a pretraining as a process of FLARE's simulator on this machine."""
    _needs_flare()
    from fedefm_core.federation.flare.local import simulate

    project, sites = _of_one_machine(config, override or [], threads)
    _tell_results(simulate(project, sites, out))


@federate.command()
def poc(config: Configs, out: Out, override: Override = None, threads: Threads = None) -> None:
    """Each silo of a pretraining as a site with certificates, on this machine's loopback."""
    _needs_flare()
    from fedefm_core.federation.flare.local import free_port, poc

    project, sites = _of_one_machine(config, override or [], threads)
    server = project.server.model_copy(update={"port": free_port()})
    project = project.model_copy(update={"server": server})
    _tell_results(poc(project, sites, out, typer.echo))


@federate.command()
def provision(project: Project, out: Out, override: Override = None) -> None:
    """Make start-up kits with certificates: for the server, each site, and the owner."""
    _needs_flare()
    from fedefm_core.federation.flare.kits import provision

    for name, kit in provision(_project(project, override), out).items():
        typer.echo(f"{name}: {kit}")


@federate.command()
def submit(
    project: Project,
    kit: Kit,
    override: Override = None,
    follow: Annotated[bool, typer.Option(help="Watch it to its end; bring back sites.")] = False,
) -> None:
    """Hand a project in. One that has begun goes on after its last whole round."""
    _needs_flare()
    from fedefm_core.federation.flare import console

    settings = _project(project, override)
    with console.open_session(kit) as session:
        job = console.submit(session, settings)
        typer.echo(f"Job {job}")
        if follow:
            console.follow(session, settings, job, typer.echo)


@federate.command()
def status(
    kit: Kit, job: Annotated[str | None, typer.Argument(help="All jobs without.")] = None
) -> None:
    """Which sites are there, and how far the jobs are."""
    _needs_flare()
    from fedefm_core.federation.flare import console

    with console.open_session(kit) as session:
        typer.echo(f"Sites: {', '.join(sorted(console.connected(session))) or 'none'}")
        numbers = [job] if job else [str(each["job_id"]) for each in console.jobs(session)]
        for number in numbers:
            told = console.status(session, number)
            typer.echo(f"{number}: {', '.join(f'{k} {v}' for k, v in told.items())}")


@federate.command()
def abort(job: Job, kit: Kit) -> None:
    """End a job at once; its whole rounds are kept."""
    _needs_flare()
    from fedefm_core.federation.flare import console

    with console.open_session(kit) as session:
        console.abort(session, job)


@federate.command()
def fetch(job: Job, kit: Kit, out: Out) -> None:
    """Bring the results of a job that has ended."""
    _needs_flare()
    from fedefm_core.federation.flare import console

    with console.open_session(kit) as session:
        _tell_results(console.fetch(session, job, out))


def _needs_flare() -> None:
    from importlib.util import find_spec

    from fedefm_core.errors import RuntimeUnavailableError

    if find_spec("nvflare") is None:
        raise RuntimeUnavailableError(
            "Federations over machines need NVIDIA FLARE: pip install 'fedefm_ros[federated]'"
        )


def _project(path: Path, override: list[str] | None) -> ProjectSettings:
    from fedefm_core.config import load_settings
    from fedefm_core.federation.flare.settings import ProjectSettings

    settings = load_settings(ProjectSettings, path, override or [])
    corpora = settings.pretrain.corpora
    if corpora.manifest is None:
        return settings
    moved = corpora.model_copy(update={"manifest": path.absolute().parent / corpora.manifest})
    pretrain = settings.pretrain.model_copy(update={"corpora": moved})
    return settings.model_copy(update={"pretrain": pretrain})


def _of_one_machine(
    configs: list[Path], override: list[str], threads: int | None
) -> tuple[ProjectSettings, dict[str, SiteSettings]]:
    """A pretraining's silos as sites. Overrides that a project has go to the project."""
    from fedefm_core.cli.pretrain import beside
    from fedefm_core.config import load_settings, parse_settings
    from fedefm_core.federation.flare.local import site_of_each_silo
    from fedefm_core.federation.flare.settings import ProjectSettings
    from fedefm_core.federation.settings import PretrainSettings

    transfers = [text.partition("=")[2] for text in override if text.startswith("transfer=")]
    others = [text for text in override if not text.startswith("transfer=")]
    settings = beside(load_settings(PretrainSettings, configs, others), configs[0])
    sites = site_of_each_silo(settings, threads)
    values: dict[str, object] = {
        "sites": dict.fromkeys(sites, "loopback"),
        "pretrain": settings.model_dump(),
    }
    if transfers:
        values["transfer"] = transfers[-1]
    return parse_settings(ProjectSettings, values), sites


def _tell_results(results: Path) -> None:
    import json

    summary = json.loads((results / "summary.json").read_text())
    typer.echo(f"Θ after {summary['rounds']} rounds: accuracy {summary['theta']['accuracy']:.3f}")
    for line in (results / "metrics.jsonl").read_text().splitlines():
        for sentence in json.loads(line)["failures"].values():
            typer.echo(f"  {sentence}")
    typer.echo(f"Foundation: {results / 'foundation.safetensors'}")
