# SPDX-License-Identifier: Apache-2.0
"""Start-up kits: for the server, each site and the owner a folder with certificates of its own.

FLARE's own provisioning makes them, with mutual TLS. What is added here lies in 'local', the part
of a kit that belongs to who holds it: which classes a job may name, how large a message may be,
where the server keeps jobs, that logs stay where they are, and a site's settings for the hospital
to fill in.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.lighter.constants import CtxKey
from nvflare.lighter.provision import prepare_builders, prepare_project
from nvflare.lighter.provisioner import Provisioner

from fedefm_core.config import save_settings
from fedefm_core.errors import OutputError
from fedefm_core.federation.flare.job import ALLOWED, write_json
from fedefm_core.federation.flare.settings import ProjectSettings
from fedefm_core.federation.flare.site_settings import SiteSettings, settings_file
from fedefm_core.federation.parcels import HEADER_LIMIT, parcel_bytes
from fedefm_core.federation.run import starting_network
from fedefm_core.federation.state import state_of

_IMPL = "nvflare.lighter.impl"
_LOG_SENDERS = {"site_log_streamer", "log_receiver"}
_ENVELOPE = 16 << 20  # bytes of FLARE's own around the largest parcel


def provision(
    project: ProjectSettings,
    out: Path,
    sites: Mapping[str, SiteSettings] | None = None,
    allowed: tuple[str, ...] = ALLOWED,
) -> dict[str, Path]:
    """Make the kits below out; where each is, by name: the server's host, the sites, the owner.

    sites: settings to put into the kits of sites; those of others are left for the site to fill
    in. Kits that are there are kept and the certificates go on being those of the same authority:
    new ones are made for participants that are new. Raises OutputError.
    """
    values = {
        "api_version": 3,
        "name": project.name,
        "description": "FedEFM",
        "gen_scripts": False,
        "participants": _participants(project),
        "builders": _builders(),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            context = Provisioner(str(out), prepare_builders(values)).provision(
                prepare_project(values)
            )
    except OSError as error:
        raise OutputError(f"Cannot write the kits to {out}: {error.strerror}") from error
    made = context.get(CtxKey.CURRENT_PROD_DIR)
    if context.get(CtxKey.BUILD_ERROR) or made is None:
        raise OutputError(f"FLARE could not make the kits: {said.getvalue().strip()}")
    largest = parcel_bytes(state_of(starting_network(project.pretrain)), "exact")
    limit = 2 * (largest + HEADER_LIMIT) + _ENVELOPE
    kits = {name: Path(made) / name for name in (project.server.host, *project.sites)}
    for name, kit in kits.items():
        _settle(kit, allowed, limit)
        if name in project.sites:
            save_settings((sites or {}).get(name, SiteSettings()), settings_file(kit, name))
    return {**kits, project.owner: Path(made) / project.owner}


def _participants(project: ProjectSettings) -> list[dict[str, Any]]:
    server = project.server
    sites = [
        {"name": name, "type": "client", "org": organisation}
        for name, organisation in project.sites.items()
    ]
    return [
        {
            "name": server.host,
            "type": "server",
            "org": server.organisation,
            "fed_learn_port": server.port,
            "admin_port": server.port,
        },
        *sites,
        {
            "name": project.owner,
            "type": "admin",
            "org": server.organisation,
            "role": "project_admin",
        },
    ]


def _builders() -> list[dict[str, Any]]:
    return [
        {
            "path": f"{_IMPL}.workspace.WorkspaceBuilder",
            "args": {"template_file": ["master_template.yml"]},
        },
        {
            "path": f"{_IMPL}.static_file.StaticFileBuilder",
            "args": {"config_folder": "config", "scheme": "grpc"},
        },
        {"path": f"{_IMPL}.cert.CertBuilder", "args": {}},
        {"path": f"{_IMPL}.signature.SignatureBuilder", "args": {}},
    ]


def _settle(kit: Path, allowed: tuple[str, ...], limit: int) -> None:
    """Write what belongs to the holder of the kit."""
    local = kit / "local"
    resources = json.loads((local / "resources.json.default").read_text())
    resources["class_allow_list"] = list(allowed)
    # FLARE would send a site's logs to the server, and who knows what is in them.
    resources["allow_log_streaming"] = False
    resources["components"] = [c for c in resources["components"] if c["id"] not in _LOG_SENDERS]
    for component in resources["components"]:
        if component["id"] == "job_manager":
            component["args"]["uri_root"] = str(kit.absolute() / "jobs")
    if "snapshot_persistor" in resources:
        storage = resources["snapshot_persistor"]["args"]["storage"]["args"]
        storage["root_dir"] = str(kit.absolute() / "snapshots")
    write_json(local / "resources.json", resources)
    file = local / "comm_config.json"
    road = json.loads(file.read_text()) if file.exists() else {}
    write_json(file, {**road, "streaming_max_blob_size": limit})
