# SPDX-License-Identifier: Apache-2.0
"""FLARE in processes: its simulator, and a server and sites with certificates on the loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_manifest import settings_for, write_manifest
from safetensors.torch import load_file

from fedefm_core.config import parse_settings
from fedefm_core.federation.run import pretrain
from fedefm_core.federation.settings import PretrainSettings

pytest.importorskip("nvflare", reason="needs the extra 'federated'")

from fedefm_core.federation.flare.local import free_port, poc, simulate, site_of_each_silo
from fedefm_core.federation.flare.settings import ProjectSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("corpora"))


def project_of(settings: PretrainSettings, sites: Any) -> ProjectSettings:
    values = {
        "sites": dict.fromkeys(sites, "x"),
        "server": {"port": free_port()},
        "pretrain": settings.model_dump(),
    }
    return parse_settings(ProjectSettings, values)


def in_one_process(settings: PretrainSettings, run_dir: Path) -> None:
    """With one thread, as each site has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pretrain(settings, run_dir)
    finally:
        torch.set_num_threads(threads)


def assert_equal(one: Path, other: Path) -> None:
    first, second = (load_file(run / "foundation.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (one, other)]
    for before, now in zip(*lines, strict=True):
        assert json.loads(before)["losses"] == json.loads(now)["losses"]
        assert json.loads(now)["failures"] == {}


def test_the_simulator_gives_the_weights_of_one_process(manifest: Path, tmp_path: Path) -> None:
    """MFD on a ring, three silos, three rounds."""
    settings = settings_for(manifest, prototypes={})
    sites = site_of_each_silo(settings, threads=1)
    results = simulate(project_of(settings, sites), sites, tmp_path / "sites")
    in_one_process(settings, tmp_path / "one")
    assert_equal(tmp_path / "one", results)


def test_sites_with_certificates_give_the_weights_of_one_process(
    manifest: Path, tmp_path: Path
) -> None:
    """FedAvg, three silos, three rounds; and nothing has left a site but what may."""
    settings = settings_for(manifest, prototypes={}, algorithm={"name": "fedavg"})
    sites = site_of_each_silo(settings, threads=1)
    told: list[str] = []
    results = poc(project_of(settings, sites), sites, tmp_path / "sites", told.append, 600)
    in_one_process(settings, tmp_path / "one")
    assert_equal(tmp_path / "one", results)
    records = list((tmp_path / "sites").rglob("traffic.jsonl"))
    assert len(records) == 3
    for record in records:
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        assert {line["to"] for line in lines} == {"server"}
        held = {name for line in lines for name in line["holds"]}
        assert held <= {"images", "resumed", "loss", "steps", "similarity", "weights"}
