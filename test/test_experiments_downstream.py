# SPDX-License-Identifier: Apache-2.0
"""The study of foundations downstream: plan, figures in closed form, what does not fit, resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import run_cli
from segmentation_networks import NETWORKS

from fedefm_core.config import load_settings
from fedefm_core.errors import OutputError, WeightsError
from fedefm_core.experiments.downstream import (
    DownstreamResult,
    DownstreamSettings,
    Key,
    _rows,
    _sha256,
    downstream,
    find_unfit,
    plan,
)
from fedefm_core.experiments.parts import held_result
from fedefm_core.networks import build_network, save_weights

SHIPPED = Path(__file__).resolve().parents[1] / "config/experiments/downstream.yaml"
BASE = """
simulation: {{size: 64, empty_fraction: 0.0}}
architecture: {name}
network: {network}
steps: 2
batch_size: 2
workers: 0
precision: fp32
pool_frames: 4
crop: 32
whole_batch_size: 1
validation: {{frames: 1, every_steps: 2}}
"""
STUDY = """
study: downstream
inits: {{scratch: null, mfd: {folder}/foundation.safetensors}}
architectures: {{vit: [{folder}/vit.yaml], wirenet: [{folder}/wirenet.yaml]}}
percents: [25, 100]
seeds: [1]
trainings:
  - name: phantom
    title: phantoms
    set: ["simulation.kind_weights={{phantom: 1}}"]
    test_kinds: [animal]
test_frames: 2
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name in ("vit", "wirenet"):
        text = BASE.format(name=name, network=json.dumps(NETWORKS[name]))
        (tmp_path / f"{name}.yaml").write_text(text)
    network = {key: value for key, value in NETWORKS["vit"].items() if key != "decoder"}
    header = {"architecture": "vit", "settings": network}
    save_weights(build_network("vit", network), tmp_path / "foundation.safetensors", header)
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(folder=tmp_path))
    return path


def part(dice: list[float | None], losses: list[float] | None = None) -> DownstreamResult:
    return DownstreamResult("", 60.0, {"animal": dice}, losses or [1.0] * 20)


def test_parts_differ_in_what_they_are_named_after(config: Path) -> None:
    parts = plan(load_settings(DownstreamSettings, config))
    assert len(parts) == 8
    one, other = (
        parts[Key("phantom", "vit", init, 25, 1)].model_dump() for init in ("scratch", "mfd")
    )
    assert {key for key in one if one[key] != other[key]} == {"init"}
    assert one["simulation"]["kind_weights"]["phantom"] == 1
    assert one["labels"]["percent"] == 25


def test_figures_are_paired_by_frame_and_seed(config: Path) -> None:
    settings = load_settings(DownstreamSettings, config)
    results = {
        Key("phantom", "vit", "scratch", 25, 1): part([0.5, 0.6, None]),
        Key("phantom", "vit", "mfd", 25, 1): part([0.6, 0.7, None], [2.0] * 18 + [1.0] * 2),
    }
    rows = [
        r for r in _rows(settings, results) if (r["percent"], r["architecture"]) == (25, "vit")
    ]
    scratch, mfd = rows
    assert (scratch["dice"], scratch["difference"]) == (pytest.approx(0.55), 0)
    assert mfd["difference"] == pytest.approx(0.1)
    assert mfd["interval"] == pytest.approx((0.1, 0.1))
    assert (scratch["flatness"], mfd["flatness"]) == (1.0, 0.5)
    empty = next(r for r in _rows(settings, {}) if r["init"] == "mfd")
    assert empty["dice"] is None


def test_what_does_not_fit_is_told_and_what_is_missing_is_an_error(config: Path) -> None:
    settings = load_settings(DownstreamSettings, config)
    unfit = find_unfit(settings)
    assert list(unfit) == [("wirenet", "mfd")]
    assert "Nothing in" in unfit["wirenet", "mfd"]
    (config.parent / "foundation.safetensors").unlink()
    with pytest.raises(WeightsError, match="foundation"):
        downstream(settings, config.parent / "out", print)
    assert not (config.parent / "out").exists()


def test_the_study_runs_and_is_not_run_twice(config: Path, tmp_path: Path) -> None:
    arguments = ("experiment", config, "--out", tmp_path / "out", "--set", "percents=[25]")
    first = run_cli(*arguments)
    assert first.code == 0
    assert first.err.count("Part") == 3
    found = json.loads((tmp_path / "out/report.json").read_text())
    assert found["finished"] == 3
    assert list(found["does_not_fit"]) == ["wirenet, mfd"]
    page = (tmp_path / "out/report.md").read_text()
    assert "Left out" in page
    assert "losses.png" in page
    again = run_cli(*arguments)
    assert (again.code, again.err.count("Part")) == (0, 0)
    settings = load_settings(DownstreamSettings, config, ["percents=[25]", "test_frames=3"])
    key, chosen = next(iter(plan(settings).items()))
    with pytest.raises(OutputError, match="result of other settings"):
        held_result(DownstreamResult, tmp_path / "out" / key.folder, _sha256(chosen, settings))


def test_the_shipped_configuration_can_be_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SHIPPED.parents[2])
    parts = plan(load_settings(DownstreamSettings, SHIPPED))
    assert len(parts) == 2 * 3 * 2 * 3 * 3
