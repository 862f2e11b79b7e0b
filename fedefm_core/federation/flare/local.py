# SPDX-License-Identifier: Apache-2.0
"""A federation whose server and sites are processes of this machine.

simulate    FLARE's simulator: no certificates, no ports that others see; for trying out
poc         what hospitals run: start-up kits, mutual TLS on the loopback, a server and sites that
            are started from their kits, and a job that is handed in
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from fedefm_core.config import save_settings
from fedefm_core.corpora import list_corpora, load_manifest, silos_of
from fedefm_core.errors import FederationError, OutputError
from fedefm_core.federation.flare.calls import RESULTS
from fedefm_core.federation.flare.console import (
    Tell,
    fetch,
    follow,
    open_session,
    submit,
    wait_for_sites,
)
from fedefm_core.federation.flare.job import ALLOWED, write_job
from fedefm_core.federation.flare.kits import provision
from fedefm_core.federation.flare.settings import ProjectSettings
from fedefm_core.federation.flare.site_settings import LimitSettings, SiteSettings
from fedefm_core.federation.settings import PretrainSettings

SIMULATOR = "nvflare.private.fed.app.simulator.simulator"
_SERVER = "nvflare.private.fed.app.server.server_train"
_CLIENT = "nvflare.private.fed.app.client.client_train"
_JOB = "simulate_job"  # what the simulator calls every job


def site_of_each_silo(settings: PretrainSettings, threads: int | None) -> dict[str, SiteSettings]:
    """Sites that hold what the silos of a pretraining on one machine hold.

    threads: of each site's process. Raises ManifestError.
    """
    manifest = load_manifest(settings.corpora.manifest, settings.corpora.override)
    limits = LimitSettings(cpu_threads=threads, device=settings.training.device)
    return {
        silo.name: SiteSettings(
            manifest=settings.corpora.manifest,
            override=settings.corpora.override,
            silo=silo.name,
            limits=limits,
        )
        for silo in silos_of(manifest, list_corpora(manifest))
    }


def simulate(project: ProjectSettings, sites: Mapping[str, SiteSettings], out: Path) -> Path:
    """Run a project on FLARE's simulator, each site a process; the folder of its results.

    FLARE's own logs stay in out/flare. Raises OutputError when out holds a run, FederationError
    when the run did not end well.
    """
    results = out / "results"
    if results.exists():
        raise OutputError(f"{out} holds a run already; name another folder")
    workspace = (out / "flare").absolute()
    local = workspace / "local"
    local.mkdir(parents=True, exist_ok=True)
    for name, settings in sites.items():
        save_settings(settings, local / f"{name}.yaml")
    allowed = {"format_version": 2, "class_allow_list": list(ALLOWED)}
    (local / "resources.json.default").write_text(json.dumps(allowed))
    job = write_job(project, out.absolute() / "job")
    names = ",".join(project.sites)
    options = ["-w", str(workspace), "-c", names, "-t", str(len(project.sites)), "-l", "concise"]
    log = out / "simulator.log"
    with log.open("w") as lines:
        ended = subprocess.run(
            [sys.executable, "-m", SIMULATOR, str(job), *options],
            stdout=lines,
            stderr=subprocess.STDOUT,
            env=_environment(),
            check=False,
        )
    found = workspace / "server" / _JOB / RESULTS
    state = _state(found)
    if ended.returncode != 0 or state.get("state") != "done":
        why = state.get("why", f"see {log}")
        raise FederationError(f"The simulation did not end well: {why}")
    shutil.copytree(found, results)
    return results


def poc(
    project: ProjectSettings,
    sites: Mapping[str, SiteSettings],
    out: Path,
    tell: Tell,
    deadline: float = 300.0,
) -> Path:
    """Run a project with a server and sites as they are on many machines; the folder of its
    results. deadline: seconds for all to come up.

    Kits and logs stay in out/kits. Raises OutputError when out holds a run, FederationError when
    the run did not end well.
    """
    results = out / "results"
    if results.exists():
        raise OutputError(f"{out} holds a run already; name another folder")
    kits = provision(project, out / "kits", sites)
    with running(project, kits), open_session(kits[project.owner], deadline) as session:
        wait_for_sites(session, set(project.sites), deadline)
        job = submit(session, project)
        tell(f"Handed in as job {job}")
        job, ended = follow(session, project, job, tell)
        fetch(session, job, results)
    state = _state(results)
    if state.get("state") != "done":
        raise FederationError(
            f"The run did not end well ({ended['job']}): {state.get('why', 'see ' + str(out))}"
        )
    return results


@contextmanager
def running(
    project: ProjectSettings, kits: Mapping[str, Path]
) -> Iterator[dict[str, Participant]]:
    """The server and all sites as processes, by name; ended when the context is."""
    started = {}
    try:
        for name in (project.server.host, *project.sites):
            started[name] = Participant(kits[name], server=name == project.server.host)
        yield started
    finally:
        for participant in reversed(started.values()):
            participant.stop()


class Participant:
    """The process of a start-up kit, and those that it starts for jobs; it begins at once."""

    def __init__(self, kit: Path, server: bool, extra: Sequence[Path] = ()) -> None:
        """extra: folders in which its Python finds more modules."""
        self._kit = kit.absolute()
        self._module = _SERVER if server else _CLIENT
        self._config = "fed_server.json" if server else "fed_client.json"
        self._extra = extra
        self.start()

    def start(self) -> None:
        """Start the process, or start it again."""
        identity = [] if self._module == _SERVER else [f"uid={self._kit.name}"]
        settings = ["secure_train=true", *identity, "org=fedefm", "config_folder=config"]
        options = ["-m", str(self._kit), "-s", self._config, "--set", *settings]
        with (self._kit / "console.log").open("a") as lines:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", self._module, *options],
                cwd=self._kit,
                stdout=lines,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(self._extra),
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it and the processes of its jobs at once, as a power cut would."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it, gently at first, and then whatever is left of its jobs."""
        family = self._family()
        self._process.terminate()
        psutil.wait_procs(family, timeout=10)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self._process.pid)
            return [*parent.children(recursive=True), parent]
        except psutil.NoSuchProcess:
            return []


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def _state(results: Path) -> dict[str, str]:
    file = results / "status.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _environment(extra: Sequence[Path] = ()) -> dict[str, str]:
    """This environment, in which sites find what this process would."""
    paths = [*map(str, extra), *(path for path in sys.path if path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
