# SPDX-License-Identifier: Apache-2.0
"""What FLARE's server runs for a job: it starts the rounds, tells how they go, keeps results."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from nvflare.collab import collab
from nvflare.collab.api.constants import FL_CONTEXT_PROP

from fedefm_core.errors import FedefmError
from fedefm_core.federation.flare.calls import PAUSE, RESULTS, STATUS

logger = logging.getLogger(__name__)
STATE_FOLDER = "fedefm"  # in the server's own folder of FLARE


class Conductor:
    """project: the owner's settings as JSON text; FLARE would take a mapping for a component."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._status: dict[str, Any] = {"state": "joining"}
        self._pausing = False

    @collab.main
    def run(self) -> None:
        """All rounds that are left, or up to the one after which the owner asks for a pause."""
        fl_context = collab.get_app_prop(FL_CONTEXT_PROP)
        engine = fl_context.get_engine()
        engine.register_app_command(STATUS, self._tell)
        engine.register_app_command(PAUSE, self._pause)
        workspace = collab.workspace
        folder = Path(workspace.get_root_dir()) / STATE_FOLDER / json.loads(self._project)["name"]
        proxies = {proxy.name: proxy for proxy in collab.clients}
        # Here, not above: it takes long to load, and the owner may ask meanwhile.
        from fedefm_core.federation.flare.rounds import run_rounds

        try:
            run_rounds(self._project, proxies, folder, self._status, lambda: self._pausing)
        except FedefmError as error:
            self._status |= {"state": "stopped", "why": str(error)}
            raise
        finally:
            results = Path(workspace.get_run_dir(fl_context.get_job_id())) / RESULTS
            results.mkdir(parents=True, exist_ok=True)
            if folder.is_dir():
                shutil.copytree(folder, results, dirs_exist_ok=True)
            (results / "status.json").write_text(json.dumps(self._told(), indent=2) + "\n")

    def _tell(self, topic: str, data: Any, fl_context: Any) -> dict[str, Any]:
        return self._told()

    def _pause(self, topic: str, data: Any, fl_context: Any) -> dict[str, Any]:
        self._pausing = True
        return self._told()

    def _told(self) -> dict[str, Any]:
        return {**self._status, "lost": sorted(self._status.get("lost", ()))}
