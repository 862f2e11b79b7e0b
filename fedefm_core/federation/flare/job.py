# SPDX-License-Identifier: Apache-2.0
"""The job that FLARE carries to server and sites: which of our classes to run, and the project.

It holds no code. Sites run the fedefm_core that is installed there, and their kits allow the two
classes that are named here and FLARE's own (kits.py); a job with others is turned away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedefm_core.federation.flare.settings import ProjectSettings

CONDUCTOR = "fedefm_core.federation.flare.conductor.Conductor"
SITE = "fedefm_core.federation.flare.site.FlareSite"
CONTROLLER = "nvflare.collab.runtime.controller.CollabController"
EXECUTOR = "nvflare.collab.runtime.executor.CollabExecutor"
ALLOWED = (CONTROLLER, EXECUTOR, CONDUCTOR, SITE)
START_S = 600  # that a site may take to start its part of a job


def write_job(project: ProjectSettings, folder: Path, site: str = SITE) -> Path:
    """Write the job below folder; where it is. site: the class that sites run."""
    job = folder / project.name
    meta = {
        "name": project.name,
        "resource_spec": {},
        "min_clients": min(project.minimum_sites, len(project.sites)),
        "deploy_map": {"conductor": ["server"], "site": list(project.sites)},
    }
    controller = {"server_obj_id": "conductor_object", "sync_task_timeout": START_S}
    server = {
        "format_version": 2,
        "workflows": [{"id": "controller", "path": CONTROLLER, "args": controller}],
        "components": [
            {
                "id": "conductor_object",
                "path": CONDUCTOR,
                "args": {"project": project.model_dump_json()},
            }
        ],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    executor = {"path": EXECUTOR, "args": {"client_obj_id": "site_object"}}
    client = {
        "format_version": 2,
        "executors": [{"tasks": ["*"], "executor": executor}],
        "components": [{"id": "site_object", "path": site, "args": {}}],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    write_json(job / "meta.json", meta)
    write_json(job / "conductor" / "config" / "config_fed_server.json", server)
    write_json(job / "site" / "config" / "config_fed_client.json", client)
    return job


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file that FLARE reads, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n")
