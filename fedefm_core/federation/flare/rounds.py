# SPDX-License-Identifier: Apache-2.0
"""All rounds of a project: the run of one machine (federation/run.py), with sites for silos.

What it knows lies in the server's own folder between jobs, so that a job that ended early is
resumed by the next one of the same project: from the last round that all of it was done with.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fedefm_core.config import parse_settings, settings_sha256
from fedefm_core.errors import OutputError
from fedefm_core.federation.flare.carrier import FlareCarrier
from fedefm_core.federation.flare.settings import ProjectSettings
from fedefm_core.federation.log import METRICS, Log, Totals
from fedefm_core.federation.parcels import parcel_bytes
from fedefm_core.federation.run import (
    Federation,
    assemble_remote,
    check_run,
    open_run,
    run_round,
    summarise,
)

logger = logging.getLogger(__name__)
_PROGRESS = "progress.json"


def run_rounds(
    project_text: str,
    proxies: Mapping[str, Any],
    folder: Path,
    status: dict[str, Any],
    pausing: Callable[[], bool],
) -> None:
    """All rounds that are left, or up to the one after which pausing says so.

    project_text: JSON of ProjectSettings. proxies: of the sites in the job, by name. folder: of
    the run. status: is kept up to date. Raises FedefmError.
    """
    project = parse_settings(ProjectSettings, json.loads(project_text), "the project")
    settings = project.pretrain
    check_run(settings, folder, resume=True)
    federation = assemble_remote(
        settings, tuple(project.sites), partial(parcel_bytes, transfer=project.transfer)
    )
    open_run(federation, folder)
    first, totals = _progress(folder)
    carrier = FlareCarrier(project, proxies, federation.start, settings.on_failure)
    try:
        if first < settings.rounds:
            campaign = f"{project.name}-{settings_sha256(settings)[:12]}"
            carrier.join(campaign, _for_sites(project, federation), first)
        status["lost"] = carrier.lost  # as it is at any moment
        with Log(folder, first, settings.tensorboard) as log:
            for round in range(first, settings.rounds):
                status |= {"state": "running", "round": round}
                run_round(federation, carrier, round, totals, log, folder)
                _save_progress(folder, round, totals)
                status |= {
                    "done": round + 1,
                    "failures": dict(carrier.record.failures),
                    "accuracy": _last_accuracy(folder),
                }
                routes = {"->".join(link): route for link, route in carrier.routes.items()}
                logger.info("Round %d is done; roads: %s", round, routes or "none")
                if pausing() and round + 1 < settings.rounds:
                    status["state"] = "paused"
                    return
    finally:
        carrier.close()
    summarise(federation, folder, totals)
    status["state"] = "done"


def _last_accuracy(folder: Path) -> float | None:
    """Of Θ, as the last line of the log has it; None where it was not measured."""
    last = json.loads((folder / METRICS).read_text().splitlines()[-1])
    accuracy = last.get("theta", {}).get("accuracy")
    return None if accuracy is None else float(accuracy)


def _for_sites(project: ProjectSettings, federation: Federation) -> dict[str, Any]:
    """What a site must know of the project."""
    settings = project.pretrain
    model = federation.header["settings"]
    return {
        "architecture": settings.architecture,
        "model": model,
        "kinds": federation.header["labels"],
        "image_size": model["image_size"],
        "training": settings.training.model_dump(mode="json"),
        "seed": settings.seed,
        "transfer": project.transfer,
    }


def _progress(folder: Path) -> tuple[int, Totals]:
    file = folder / _PROGRESS
    if not file.exists():
        return 0, Totals()
    kept = json.loads(file.read_text())
    return int(kept["round"]) + 1, Totals(**kept["totals"])


def _save_progress(folder: Path, round: int, totals: Totals) -> None:
    partial_file = folder / (_PROGRESS + ".partial")
    try:
        with partial_file.open("w") as file:
            json.dump({"round": round, "totals": asdict(totals)}, file)
            file.flush()
            os.fsync(file.fileno())
        partial_file.replace(folder / _PROGRESS)
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}") from error
