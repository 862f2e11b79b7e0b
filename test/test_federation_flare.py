# SPDX-License-Identifier: Apache-2.0
"""Sites, carrier and rounds of a federation on FLARE, with plain calls in place of its network."""

from __future__ import annotations

import json
import math
import pickle
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from federation_manifest import settings_for, write_manifest
from safetensors.torch import load_file, save

from fedefm_core.config import load_settings, parse_settings, save_settings
from fedefm_core.errors import ConfigError, FederationError
from fedefm_core.federation.run import pretrain
from fedefm_core.federation.settings import PretrainSettings

pytest.importorskip("nvflare", reason="needs the extra 'federated'")

from fedefm_core.federation.flare.job import SITE, write_job
from fedefm_core.federation.flare.local import site_of_each_silo
from fedefm_core.federation.flare.rounds import run_rounds
from fedefm_core.federation.flare.settings import ProjectSettings
from fedefm_core.federation.flare.site import FlareSite
from fedefm_core.federation.flare.site_settings import SiteSettings, settings_file, works_at

NAMES = ("silo0", "silo1", "silo2")
# Sites have processes of their own; here they share torch's generator, so they train in turn.
ONE_GENERATOR = threading.Lock()
TRAINING = {"train_local", "train_guest", "distil"}
Fault = Callable[[str, str, str, dict[str, Any]], Any]  # (caller, site, method, arguments)


class Proxy:
    """Calls a site as FLARE's proxy does. fault: may raise, or answer in place of the site."""

    def __init__(self, caller: str, site: FlareSite, fault: Fault | None) -> None:
        self._caller, self._site, self._fault = caller, site, fault

    def __call__(self, timeout: float, secure: bool = False) -> Proxy:
        return self

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            if self._fault is not None:
                answer = self._fault(self._caller, self._site.name, method, arguments)
                if answer is not None:
                    return answer
            context = SimpleNamespace(caller=self._caller)
            with ONE_GENERATOR if method in TRAINING else nullcontext():
                return getattr(self._site, method)(context=context, **arguments)

        return call


class Federation:
    """Sites in folders of their own, and the rounds of a project over them."""

    def __init__(self, root: Path, pretraining: PretrainSettings, **project: Any) -> None:
        self.root = root
        self.settings = pretraining
        self.own = site_of_each_silo(pretraining, threads=None)
        values = {"sites": dict.fromkeys(self.own, "x"), "pretrain": pretraining.model_dump()}
        self.project = parse_settings(ProjectSettings, {**values, **project})
        self.status: dict[str, Any] = {}
        self.sites: dict[str, FlareSite] = {}

    def run(self, fault: Fault | None = None, rounds: int | None = None) -> None:
        """Start all sites anew, and run the rounds that are left, or so many."""
        cell = SimpleNamespace(
            get_fqcn=lambda: "site.job",
            core_cell=SimpleNamespace(agents={}, supports_secure_messages=lambda: True),
        )
        self.sites = {name: FlareSite() for name in self.own}
        for name, site in self.sites.items():
            kit = self.root / name
            if not settings_file(kit, name).exists():
                save_settings(self.own[name], settings_file(kit, name))
            others = {n: Proxy(name, s, fault) for n, s in self.sites.items()}
            site.settle(name, kit, others, cell)
        proxies = {name: Proxy("server", site, fault) for name, site in self.sites.items()}
        text = self.project.model_dump_json()
        pausing = (lambda: False) if rounds is None else (lambda: self.status["done"] >= rounds)
        run_rounds(text, proxies, self.folder, self.status, pausing)

    @property
    def folder(self) -> Path:
        return self.root / "server"

    def lines(self) -> list[dict[str, Any]]:
        texts = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(text) for text in texts]

    def weights(self, site: str) -> Mapping[str, torch.Tensor]:
        """Of a site, after its last round."""
        files = sorted((self.root / site).glob("fedefm/*/checkpoint-*/*.safetensors"))
        return load_file(files[-1])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("corpora"))


@pytest.fixture
def federation(manifest: Path, tmp_path: Path) -> Federation:
    return Federation(tmp_path, settings_for(manifest, prototypes={}))


@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "mfd", "merge_weight": "sharpened"},
        {"name": "mfd", "split": False, "home_training": True, "merge": "last", "host_share": 0},
        {"name": "fedavg"},
        {"name": "moon"},
        {"name": "gossip"},
    ],
    ids=["mfd", "mfd_merging_last", "fedavg", "moon", "gossip"],
)
def test_sites_compute_what_one_process_does(
    manifest: Path, tmp_path: Path, algorithm: dict[str, Any]
) -> None:
    settings = settings_for(manifest, prototypes={}, algorithm=algorithm)
    pretrain(settings, tmp_path / "one")
    many = Federation(tmp_path / "many", settings)
    many.run()
    assert many.status["state"] == "done"
    assert_same(load_file(tmp_path / "one" / "foundation.safetensors"), many)
    for name in NAMES:
        (file,) = (tmp_path / "one").glob(f"checkpoint-*/{name}.safetensors")
        one, other = load_file(file), many.weights(name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    for before, now in zip(read_lines(tmp_path / "one"), many.lines(), strict=True):
        for same in ("losses", "steps", "similarity", "failures", "consensus_distance"):
            assert before[same] == now[same]


def assert_same(theta: Mapping[str, torch.Tensor], federation: Federation) -> None:
    other = load_file(federation.folder / "foundation.safetensors")
    assert theta.keys() == other.keys()
    assert all(torch.equal(theta[name], other[name]) for name in theta)


def read_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("transfer", ["exact", "bf16", "int8"])
def test_bytes_of_a_link_are_those_of_the_cycle_time(
    manifest: Path, tmp_path: Path, transfer: str
) -> None:
    settings = settings_for(manifest, prototypes={}, rounds=2)
    federation = Federation(tmp_path, settings, transfer=transfer)
    federation.run()
    from fedefm_core.federation.parcels import parcel_bytes
    from fedefm_core.federation.run import starting_network
    from fedefm_core.federation.state import state_of

    predicted = parcel_bytes(state_of(starting_network(settings)), transfer)  # type: ignore[arg-type]
    links = federation.lines()[1]["bytes_by_link"]
    assert len(links) == 6  # a ring of three, out and home
    for size in links.values():
        assert predicted < size < predicted + 16_000  # of a parcel's header: names and shapes


def test_a_run_goes_on_where_it_was_paused(manifest: Path, tmp_path: Path) -> None:
    settings = settings_for(manifest, prototypes={})
    whole, parts = Federation(tmp_path / "a", settings), Federation(tmp_path / "b", settings)
    whole.run()
    parts.run(rounds=1)
    assert parts.status["state"] == "paused"
    parts.run(rounds=2)
    parts.run()
    assert parts.status["state"] == "done"
    assert_same(load_file(whole.folder / "foundation.safetensors"), parts)
    assert [line["round"] for line in parts.lines()] == [0, 1, 2]


def gone(site: str, step: str, since: int, error: Exception) -> Fault:
    """The site does not answer, from a step of a round on."""
    dead = threading.Event()

    def fault(caller: str, called: str, method: str, arguments: dict[str, Any]) -> None:
        if called == site and method == step and arguments.get("round", -1) >= since:
            dead.set()
        if called == site and dead.is_set():
            raise error

    return fault


@pytest.mark.parametrize("step", ["begin", "train_local", "visit", "train_guest", "mix", "end"])
def test_rounds_go_on_without_a_site_that_is_gone(federation: Federation, step: str) -> None:
    federation.run(gone("silo1", step, 1, ConnectionError("the other end is gone")))
    assert federation.status["state"] == "done"
    assert federation.status["lost"] == {"silo1"}
    first, second, third = federation.lines()
    assert first["failures"] == {}
    for line in (second, third):
        assert line["failures"].keys() == {"silo1"}
    sentence = second["failures"]["silo1"]
    for word in ("In round 1", "'silo1'", f"step '{step}'", "the other end is gone"):
        assert word in sentence
    theta = load_file(federation.folder / "foundation.safetensors")
    mean = [federation.weights(name) for name in ("silo0", "silo2")]
    for name, tensor in theta.items():
        torch.testing.assert_close(
            tensor, (mean[0][f"weights/{name}"] + mean[1][f"weights/{name}"]) / 2
        )


def test_a_site_that_does_not_answer_is_told_with_its_deadline(federation: Federation) -> None:
    federation.run(gone("silo2", "train_local", 2, TimeoutError("timed out after 3600 seconds")))
    sentence = federation.lines()[2]["failures"]["silo2"]
    assert "'silo2' did not answer within 3600 s (step 'train_local')" in sentence


def test_a_site_that_was_gone_comes_back(federation: Federation) -> None:
    federation.run(gone("silo0", "distil", 1, ConnectionError("killed")), rounds=2)
    assert federation.status["lost"] == {"silo0"}
    federation.run()
    assert federation.lines()[2]["failures"] == {}
    assert federation.status["lost"] == set()


def test_stop_ends_the_run_with_the_sentence(manifest: Path, tmp_path: Path) -> None:
    settings = settings_for(manifest, prototypes={}, on_failure="stop")
    federation = Federation(tmp_path, settings)
    with pytest.raises(FederationError, match=r"In round 1: The site 'silo1' was lost"):
        federation.run(gone("silo1", "train_guest", 1, ConnectionError("killed")))
    assert len(federation.lines()) == 1
    federation.run()
    assert federation.status["state"] == "done"


def answering(site: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Fault:
    """What a site sends home of its guests in round 1 is something else."""

    def fault(caller: str, called: str, method: str, arguments: dict[str, Any]) -> Any:
        if called != site or method != "train_guest" or arguments["round"] != 1:
            return None
        from safetensors.torch import load

        sent = change(load(arguments["weights"]))
        return {"weights": sent, "loss": 1.0, "steps": 2, "similarity": {}}

    return fault


def with_nan(state: dict[str, torch.Tensor]) -> bytes:
    name = next(iter(state))
    state[name] = torch.full_like(state[name], math.nan)
    return save(state, metadata={"transfer": "exact"})


def with_other_shapes(state: dict[str, torch.Tensor]) -> bytes:
    other = {name: torch.zeros(3) for name in state}
    return save(other, metadata={"transfer": "exact"})


def of_another_network(state: dict[str, torch.Tensor]) -> bytes:
    return save({"w": torch.zeros(3)}, metadata={"transfer": "exact"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_nan, "holds NaN"),
        (with_other_shapes, "must be torch.float32 of the shape"),
        (of_another_network, "must have the network's names"),
        (pickle.dumps, "are no safetensors file"),
        (lambda state: bytes(40 << 20), "bytes at most"),
        (lambda state: {"not": "bytes"}, "must be bytes"),
    ],
    ids=["nan", "shapes", "network", "pickle", "large", "no_bytes"],
)
def test_what_is_no_weights_costs_the_sender_its_round(
    federation: Federation, change: Callable[..., Any], reason: str
) -> None:
    federation.run(answering("silo1", change))
    second, third = federation.lines()[1:]
    assert list(second["failures"]) == ["silo1"]
    sentence = second["failures"]["silo1"]
    assert "round 1" in sentence
    assert reason in sentence
    assert third["failures"] == {}  # it is asked again


def test_only_the_server_and_who_is_expected_may_call(federation: Federation) -> None:
    federation.run(rounds=1)
    site = federation.sites["silo0"]

    def ask(caller: str, method: str, **arguments: Any) -> str:
        context = SimpleNamespace(caller=caller)
        return str(getattr(site, method)(context=context, **arguments)["refused"])

    assert "for 'server' alone (asked by 'silo1')" in ask("silo1", "own_weights", round=0)
    assert "for 'server' alone" in ask("silo1", "begin", round=1)
    assert "expects no weights of 'silo1'" in ask("silo1", "train_guest", round=0, weights=b"")
    assert "expects no weights of 'silo1'" in ask("silo1", "receive", round=0, weights=b"")
    assert "is in round 0 (asked for 5)" in ask("server", "own_weights", round=5)
    assert "trains at most 10000 steps" in ask(
        "server", "train_local", round=0, task={"steps": 10_001}, contrast=False
    )
    assert "cannot do this task" in ask(
        "server", "train_local", round=0, task={"steps": 1, "extra": 1}, contrast=False
    )


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"privacy": {"minimum_images": 1000}}, "takes part with 1000 or more"),
        ({"privacy": {"guests": False}}, "trains no weights of others, by policy"),
        ({"limits": {"steps": 1}}, "trains at most 1 steps at a time"),
        ({"silo": "nobody"}, "'silo' must be one of silo0, silo1, silo2"),
        ({"manifest": "/nowhere/corpora.yaml"}, "/nowhere/corpora.yaml"),
    ],
    ids=["few_images", "no_guests", "steps", "silo", "manifest"],
)
def test_a_sites_own_settings_hold(
    federation: Federation, own: dict[str, Any], sentence: str
) -> None:
    values = federation.own["silo1"].model_dump()
    for key, value in own.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    federation.own["silo1"] = parse_settings(SiteSettings, values)
    federation.run(rounds=2)
    assert sentence in federation.lines()[-1]["failures"]["silo1"] or sentence in str(
        federation.lines()[0]["failures"]
    )


def test_neither_kind_of_settings_takes_the_others_keys(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    for key, value in (("rounds", 3), ("algorithm", "{name: fedavg}"), ("topology", "{}")):
        file.write_text(f"{key}: {value}\n")
        with pytest.raises(ConfigError, match=key):
            load_settings(SiteSettings, file)
    for key, value in (("manifest", "a.yaml"), ("limits", "{}"), ("privacy", "{}")):
        file.write_text(f"sites: {{a: b}}\n{key}: {value}\n")
        with pytest.raises(ConfigError, match=key):
            load_settings(ProjectSettings, file)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": {"name": "central"}},
        {"algorithm": {"name": "consensus"}},
        {"hostile": {"attack": "noise"}},
        {"prototypes": {"weight": 1.0}},
        {"head": "calibrated"},
    ],
    ids=lambda change: str(next(iter(change.values()))),
)
def test_what_needs_one_process_is_refused(
    manifest: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    settings = settings_for(manifest, **{"prototypes": {}, **change})
    with pytest.raises(ConfigError, match="choose another for a federation of sites"):
        Federation(tmp_path, settings).run()


def test_the_example_is_a_project() -> None:
    example = Path(__file__).resolve().parents[1] / "config" / "federation.yaml"
    project = load_settings(ProjectSettings, example)
    assert len(project.sites) == 3
    for refused in ("server", "2site"):
        with pytest.raises(ConfigError, match=refused):
            parse_settings(ProjectSettings, {"sites": {refused: "x"}})


def test_hours_may_pass_midnight() -> None:
    assert works_at(None, time(3))
    assert works_at("08:00-17:30", time(8))
    assert not works_at("08:00-17:30", time(17, 30))
    assert works_at("19:00-07:00", time(23, 59))
    assert works_at("19:00-07:00", time(6, 59))
    assert not works_at("19:00-07:00", time(12))


def test_nothing_but_weights_and_plain_numbers_leaves_a_site(federation: Federation) -> None:
    federation.run()
    for name in NAMES:
        text = (federation.root / name / "fedefm" / "traffic.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        held = {key for line in lines for key in line["holds"]}
        assert held <= {
            *("images", "resumed", "loss", "steps", "similarity", "weights", "visits", "letters")
        }
        parcels = [line for line in lines if isinstance(line["holds"].get("weights"), str)]
        to_others = [line for line in parcels if line["to"] != "server"]
        assert len(to_others) == 4  # in two rounds, its own out and a guest home
        assert {line["to"] for line in lines} <= {"server", *NAMES}


def test_a_job_holds_settings_and_no_code(federation: Federation, tmp_path: Path) -> None:
    job = write_job(federation.project, tmp_path / "job")
    files = [path for path in job.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json"}
    client = json.loads((job / "site/config/config_fed_client.json").read_text())
    assert [component["path"] for component in client["components"]] == [SITE]
    assert client["components"][0]["args"] == {}
