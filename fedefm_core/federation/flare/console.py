# SPDX-License-Identifier: Apache-2.0
"""What the owner does with a federation that runs: submit, look, abort, fetch.

All of it goes through FLARE's own session, with the certificate of the owner's kit.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.api_spec import JobNotFound, NoConnection
from nvflare.fuel.flare_api.flare_api import new_secure_session

from fedefm_core.errors import FederationError, OutputError
from fedefm_core.federation.flare.calls import PAUSE, RESULTS, STATUS
from fedefm_core.federation.flare.job import SITE, write_job
from fedefm_core.federation.flare.settings import ProjectSettings

Tell = Callable[[str], None]
RETURNS = 3  # how often a job is ended so that one and the same site can come back
_POLL_S = 2.0
_STALE_S = 30.0  # a site whose last sign of life is so much older than the newest is not there


@contextmanager
def open_session(kit: Path, timeout: float = 30.0) -> Iterator[Any]:
    """A session with the server, by the owner's kit.

    Raises FederationError when the kit is none, nobody answers, or the server lets nobody in.
    """
    file = kit / "startup" / "fed_admin.json"
    try:
        user = json.loads(file.read_text())["admin"]["username"]
    except (OSError, ValueError, KeyError):
        raise FederationError(f"{kit} is no owner's kit: it lacks a sound {file}") from None
    try:
        session = new_secure_session(user, str(kit.absolute()), timeout=timeout)
    except NoConnection as error:
        raise FederationError(
            f"The server does not answer within {timeout:g} s: {error}"
        ) from None
    except Exception as error:  # FLARE has many, for certificates, rights and protocol
        raise FederationError(f"The server lets '{user}' not in: {error}") from None
    try:
        yield session
    finally:
        session.close()


def submit(session: Any, project: ProjectSettings, site: str = SITE) -> str:
    """Hand the project in; the number of the job. site: the class that sites run."""
    with tempfile.TemporaryDirectory() as folder:
        return str(session.submit_job(str(write_job(project, Path(folder), site))))


def status(session: Any, job: str) -> dict[str, Any]:
    """How a job stands: FLARE's word for it as 'job', and what the run tells of itself."""
    try:
        word = str(session.get_job_meta(job)["status"])
    except JobNotFound:
        raise FederationError(f"There is no job '{job}'") from None
    told: dict[str, Any] = {}
    if word == "RUNNING":
        told = _ask(session, job, STATUS)
    return {"job": word, **told}


def jobs(session: Any) -> list[dict[str, Any]]:
    """All jobs that the server knows, the newest first."""
    return list(session.list_jobs(reverse=True))


def connected(session: Any) -> set[str]:
    """The sites that the server hears."""
    clients = session.get_system_info().client_info
    newest = max((client.last_connect_time for client in clients), default=0.0)
    return {c.name for c in clients if newest - c.last_connect_time < _STALE_S}


def abort(session: Any, job: str) -> None:
    """End a job at once. What was done up to its last whole round is kept."""
    try:
        session.abort_job(job)
    except JobNotFound:
        raise FederationError(f"There is no job '{job}'") from None


def fetch(session: Any, job: str, out: Path) -> Path:
    """Bring the results of a job that has ended to the folder out.

    Raises OutputError when out is there already, FederationError when there are none.
    """
    if out.exists():
        raise OutputError(f"{out} is there already; name another folder")
    with tempfile.TemporaryDirectory() as folder:
        try:
            came = Path(session.download_job_result(job, folder))
        except JobNotFound:
            raise FederationError(f"There is no job '{job}'") from None
        found = next((path.parent for path in came.rglob(f"{RESULTS}/status.json")), None)
        if found is None:
            raise FederationError(f"The job '{job}' left no results; is it still running?")
        shutil.copytree(found, out)
    return out


def follow(
    session: Any,
    project: ProjectSettings,
    job: str,
    tell: Tell,
    site: str = SITE,
    watch: Callable[[dict[str, Any]], None] = lambda now: None,
) -> tuple[str, dict[str, Any]]:
    """Watch a project until it is done; the number of its last job, and how that ended.

    watch: is given the status whenever it was asked for.

    FLARE does not let a site into a job that runs. So when one that was lost is there again, the
    job is ended after its round and handed in anew: it goes on from there, with that site.
    """
    returned: Counter[str] = Counter()
    before, pausing = "", False
    last = project.pretrain.rounds - 1  # after which there is nothing to come back for
    while True:
        now = status(session, job)
        watch(now)
        if (line := _line(now)) != before:
            tell(before := line)
        if now["job"].startswith("FINISHED"):
            if not pausing:
                return job, now
            job, pausing = submit(session, project, site), False
            tell(f"Handed in again, as job {job}")
        elif now.get("lost") and not pausing and now.get("round", last) < last:
            back = {n for n in connected(session) & set(now["lost"]) if returned[n] < RETURNS}
            if back:
                returned.update(back)
                tell(f"There again: {', '.join(sorted(back))}; the job ends after this round")
                pausing = bool(_ask(session, job, PAUSE))
        time.sleep(_POLL_S)


def wait_for_sites(session: Any, sites: set[str], deadline: float) -> None:
    """Return when the server hears all sites; raise FederationError after deadline seconds."""
    end = time.monotonic() + deadline
    while missing := sites - connected(session):
        if time.monotonic() > end:
            raise FederationError(
                f"These sites have not come within {deadline:g} s: {', '.join(sorted(missing))}"
            )
        time.sleep(_POLL_S)


def _ask(session: Any, job: str, topic: str) -> dict[str, Any]:
    try:
        return dict(session.do_app_command(job, topic, {}))
    except Exception:  # a job that is about to begin, or has just ended, has no answer
        return {}


def _line(now: dict[str, Any]) -> str:
    parts = [str(now["job"]).lower()]
    if "round" in now:
        parts.append(f"round {now['round']}")
    if now.get("accuracy") is not None:
        parts.append(f"accuracy {now['accuracy']:.3f} after round {now['done'] - 1}")
    return "; ".join([*parts, *now.get("failures", {}).values()])
