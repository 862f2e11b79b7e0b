# SPDX-License-Identifier: Apache-2.0
"""'fedefm_core engine': TensorRT engines, built before a robot needs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedefm_core.cli.main import app

if TYPE_CHECKING:
    from fedefm_core.perception.runtimes.tensorrt.progress import Progress

engine = typer.Typer(help="Build, list, verify and clear TensorRT engines.", no_args_is_help=True)
app.add_typer(engine, name="engine")

Folder = Annotated[
    Path | None, typer.Option(help="Of engines; default: $FEDEFM_ENGINES, else the user's cache.")
]


@engine.command()
def build(
    model: Annotated[
        str | None, typer.Argument(help="Path or shipped name; default: the shipped model.")
    ] = None,
    folder: Folder = None,
    optimisation_level: Annotated[
        int, typer.Option(help="0 builds in seconds, 5 tries the most.")
    ] = 3,
    workspace_mib: Annotated[
        int, typer.Option(help="GPU memory that a layer may use meanwhile; 0: no limit of ours.")
    ] = 0,
    timing_cache: Annotated[bool, typer.Option(help="Keep what was timed.")] = True,
) -> None:
    """Build the engine of a model for the GPU of this machine.

    TensorRT-RTX also builds without a GPU, for any that it supports; such an engine is used only
    where there is none to be found, that is, never: it shows that the model can be built.
    """
    from fedefm_core.config import parse_settings
    from fedefm_core.perception import resolve_model
    from fedefm_core.perception.runtimes.tensorrt import cache
    from fedefm_core.perception.runtimes.tensorrt.build_process import build_engine
    from fedefm_core.perception.runtimes.tensorrt.builder import BuildSettings
    from fedefm_core.perception.runtimes.tensorrt.machine import probe_builder

    values = {
        "optimisation_level": optimisation_level,
        "workspace_mib": workspace_mib,
        "timing_cache": timing_cache,
    }
    settings = parse_settings(BuildSettings, values, where="the options of engine build")
    path, place = resolve_model(model), folder or cache.default_folder()
    machine = probe_builder()
    gpu = machine.gpu or "any GPU that it supports (there is none here to run it)"
    typer.echo(f"{machine.flavour} {machine.version} builds {path} for {gpu}")
    with _Bar() as bar:
        entry = build_engine(path, place, machine, settings, bar.show)
    typer.echo(
        f"{place / (entry.key.stem + cache.PLAN)}: {entry.model}, {entry.key.precision}, "
        f"{entry.plan_bytes} bytes, built in {entry.build_s:.0f} s"
    )


@engine.command("list")
def list_engines(folder: Folder = None) -> None:
    """Say which engines there are, and for what."""
    from fedefm_core.perception.runtimes.tensorrt import cache

    place = folder or cache.default_folder()
    names = cache.stems(place)
    typer.echo(f"{len(names)} engines in {place}")
    for stem in names:
        try:
            entry = cache.read_entry(place / (stem + cache.RECORD))
        except (OSError, ValueError):
            typer.echo(f"{stem}: its record is missing or unreadable")
            continue
        key = entry.key
        height, width = key.input_size
        gpu = (
            f"{key.gpu} ({key.compute_capability}), driver {key.driver}" if key.gpu else "any GPU"
        )
        typer.echo(
            f"{stem}: {entry.model}, {key.precision}, {height} x {width}, for {gpu}, by "
            f"{key.flavour} {key.version}, {entry.plan_bytes / 1e6:.1f} MB, {entry.created}"
        )


@engine.command()
def verify(folder: Folder = None) -> None:
    """Check every engine against its record; exit 1 when one may not be used."""
    from fedefm_core.perception.runtimes.tensorrt import cache

    place = folder or cache.default_folder()
    names = cache.stems(place)
    troubles = [trouble for stem in names if (trouble := cache.problem(place, stem))]
    for trouble in troubles:
        typer.echo(trouble, err=True)
    typer.echo(f"{len(names) - len(troubles)} of {len(names)} engines in {place} are whole")
    if troubles:
        raise typer.Exit(1)


@engine.command()
def clear(
    folder: Folder = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Of an engine, as 'list' shows it; default: all.")
    ] = None,
) -> None:
    """Remove engines and what was timed for them; other files in the folder stay."""
    from fedefm_core.errors import ConfigError
    from fedefm_core.perception.runtimes.tensorrt import cache

    place = folder or cache.default_folder()
    unknown = sorted(set(name or ()) - set(cache.stems(place)))
    if unknown:
        raise ConfigError(f"There is no engine {', '.join(unknown)} in {place}")
    freed = cache.clear(place, name)
    typer.echo(f"{freed / 1e6:.1f} MB removed from {place}")


class _Bar:
    """Progress on the terminal: a bar where a person watches, else nothing."""

    def __enter__(self) -> _Bar:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar.start()
        self._task = self._bar.add_task("starting", total=1.0)
        return self

    def show(self, progress: Progress) -> None:
        """Show how far the build is."""
        self._bar.update(self._task, completed=progress.fraction, description=str(progress))

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
