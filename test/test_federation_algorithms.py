# SPDX-License-Identifier: Apache-2.0
"""Each algorithm against its derivation in numpy, on a linear model, for one or two rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from federation_silos import (
    CLASSES,
    NAMES,
    RATE,
    Matrix,
    carrier_of,
    gradient,
    matrix,
    schedule_of,
    silos,
    soft_gradient,
    start,
    step,
)

from fedefm_core.config import parse_settings
from fedefm_core.errors import ConfigError
from fedefm_core.federation.algorithms import ALGORITHMS, AlgorithmSettings
from fedefm_core.federation.algorithms.gossip import mixing_weights
from fedefm_core.federation.algorithms.mfd import MfdSettings, merge_shares
from fedefm_core.federation.carrier import InProcess
from fedefm_core.federation.cycle_time import RoundSettings
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.settings import PretrainSettings
from fedefm_core.federation.underlays import alike

BYTES = 4 * CLASSES * 4  # of the linear model


def settings_of(name: str, **values: Any) -> AlgorithmSettings:
    return parse_settings(PretrainSettings, {"algorithm": {"name": name, **values}}).algorithm


def play(
    settings: AlgorithmSettings, schedule: Schedule, rounds: int, carrier: InProcess | None = None
) -> InProcess:
    carrier = carrier or carrier_of(silos())
    for round in range(rounds):
        carrier.begin(round, {})
        ALGORITHMS[settings.name].train_round(settings, carrier, schedule, round)
        carrier.end()
        assert carrier.record.failures == {}
    return carrier


def all_weights(carrier: InProcess) -> dict[str, Matrix]:
    return {name: matrix(carrier.weights(name)) for name in carrier.silos}


def assert_weights(carrier: InProcess, expected: dict[str, Matrix]) -> None:
    for name, weights in all_weights(carrier).items():
        np.testing.assert_allclose(weights, expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.fixture
def members() -> dict[str, Any]:
    return {silo.name: silo for silo in silos()}


def before(name: str) -> str:
    """The silo that sends to name on the ring."""
    return NAMES[NAMES.index(name) - 1]


def after(name: str) -> str:
    return NAMES[(NAMES.index(name) + 1) % len(NAMES)]


def test_local(members: dict[str, Any]) -> None:
    carrier = play(settings_of("local"), Schedule(None, 3, 10), 2)
    assert_weights(carrier, {n: step(matrix(start()), s, 6) for n, s in members.items()})
    assert carrier.record.traffic == {}


def test_fedavg_weights_silos_by_their_images(members: dict[str, Any]) -> None:
    carrier = play(settings_of("fedavg"), schedule_of("star", steps=2), 2)
    w, total = matrix(start()), sum(len(s.data) for s in members.values())
    for _ in range(2):
        w = sum(len(s.data) / total * step(w, s, 2) for s in members.values())
    assert_weights(carrier, dict.fromkeys(NAMES, w))
    assert sum(carrier.record.traffic.values()) == 2 * 3 * BYTES
    assert carrier.record.steps == {"local": 6, "overseas": 0, "distillation": 0}


def test_fedavg_with_one_step_is_gradient_descent_on_the_union(members: dict[str, Any]) -> None:
    carrier = play(settings_of("fedavg"), schedule_of("star"), 1)
    w, total = matrix(start()), sum(len(s.data) for s in members.values())
    whole = sum(len(s.data) / total * gradient(w, s) for s in members.values())
    assert_weights(carrier, dict.fromkeys(NAMES, w - RATE * whole))


def test_fedprox_is_pulled_to_the_weights_that_came(members: dict[str, Any]) -> None:
    settings = settings_of("fedprox", mu=0.4, weighting="uniform")
    carrier = play(settings, schedule_of("star", steps=2), 1)
    w0 = matrix(start())
    trained = []
    for silo in members.values():
        w = step(w0, silo)
        trained.append(w - RATE * (gradient(w, silo) + 0.4 * (w - w0)))
    assert_weights(carrier, dict.fromkeys(NAMES, np.mean(trained, axis=0)))


def test_moon_begins_as_fedavg(members: dict[str, Any]) -> None:
    # The features of the linear model are its pixels, so the contrast has no gradient here; its
    # formula is tested with the silo.
    moon = play(settings_of("moon"), schedule_of("star"), 2)
    assert_weights(moon, all_weights(play(settings_of("fedavg"), schedule_of("star"), 2)))
    assert moon.previous("a") is not None


def test_gossip_on_a_ring_takes_half_from_the_one_before(members: dict[str, Any]) -> None:
    carrier = play(settings_of("gossip"), schedule_of("ring", steps=2), 2)
    weights = dict.fromkeys(NAMES, matrix(start()))
    for _ in range(2):
        trained = {n: step(weights[n], s, 2) for n, s in members.items()}
        weights = {n: (trained[n] + trained[before(n)]) / 2 for n in NAMES}
    assert_weights(carrier, weights)
    assert carrier.record.traffic == {(n, after(n)): BYTES for n in NAMES}


def test_gossip_between_all_is_consensus(members: dict[str, Any]) -> None:
    gossip = play(settings_of("gossip"), schedule_of("complete"), 2)
    consensus = play(settings_of("consensus"), schedule_of("ring"), 2)
    assert_weights(gossip, all_weights(consensus))
    w = matrix(start())
    for _ in range(2):
        w = np.mean([step(w, s) for s in members.values()], axis=0)
    assert_weights(consensus, dict.fromkeys(NAMES, w))
    assert sum(consensus.record.traffic.values()) == 3 * (2 * 2 * BYTES // 3)


@pytest.mark.parametrize("topology", ["ring", "star", "complete", "exponential", "mst", "matcha"])
def test_mixing_keeps_the_mean(topology: str) -> None:
    names = [f"silo{number}" for number in range(7)]
    links = schedule_of(topology, names=names).joined().active(0)
    shares = np.zeros((7, 7))
    for (source, target), weight in mixing_weights(links).items():
        shares[names.index(target), names.index(source)] = weight
    own = 1 - shares.sum(1)
    assert (own > 0).all()
    np.testing.assert_allclose((shares + np.diag(own)).sum(0), 1)


def test_cdl_steps_towards_what_the_neighbour_was(members: dict[str, Any]) -> None:
    carrier = play(settings_of("cdl", gain=0.6), schedule_of("ring"), 2)
    weights = dict.fromkeys(NAMES, matrix(start()))
    for _ in range(2):
        trained = {n: step(weights[n], s) for n, s in members.items()}
        weights = {n: trained[n] + 0.6 * 0.5 * (weights[before(n)] - trained[n]) for n in NAMES}
    assert_weights(carrier, weights)


def test_mfd_begins_at_home(members: dict[str, Any]) -> None:
    carrier = play(settings_of("mfd"), schedule_of("ring", steps=2), 1)
    assert_weights(carrier, {n: step(matrix(start()), s, 2) for n, s in members.items()})
    assert carrier.record.traffic == {}


def test_mfd_reference_takes_half_from_its_experts(members: dict[str, Any]) -> None:
    carrier = play(settings_of("mfd", preset="reference"), schedule_of("ring", steps=2), 2)
    began = {n: step(matrix(start()), s, 2) for n, s in members.items()}
    expected = {
        n: (step(began[n], members[n], 2) + step(began[n], members[after(n)], 2)) / 2
        for n in NAMES
    }
    assert_weights(carrier, expected)
    assert carrier.record.steps == {"local": 6, "overseas": 6, "distillation": 0}
    out_and_home = {(n, after(n)) for n in NAMES} | {(after(n), n) for n in NAMES}
    assert carrier.record.traffic == dict.fromkeys(out_and_home, BYTES)


def test_mfd_default_mixes_oneself_host_and_guest_and_keeps_every_step(
    members: dict[str, Any],
) -> None:
    carrier = play(settings_of("mfd", distil_steps=0), schedule_of("ring", steps=3), 2)
    began = {n: step(matrix(start()), s, 3) for n, s in members.items()}
    learned = {n: step(began[n], members[after(n)], 2) - began[n] for n in NAMES}  # split: 2 of 3
    expected = {
        n: (began[n] + began[before(n)] + began[after(n)]) / 3
        + (2 * learned[n] + learned[before(n)]) / 3
        for n in NAMES
    }
    assert_weights(carrier, expected)
    mean = sum(expected.values()) / 3
    steps = sum(learned.values()) / 3
    np.testing.assert_allclose(mean, sum(began.values()) / 3 + steps)


def test_mfd_distils_into_what_was_merged(members: dict[str, Any]) -> None:
    distillation = {"weight": "none", "scope": "all", "beta": 0.7, "temperature": 2.0}
    settings = settings_of(
        "mfd", host_share=0.25, merge_experts=0.5, merge_guests=0.2, distillation=distillation
    )
    carrier = play(settings, schedule_of("ring", steps=2), 2)
    began = {n: step(matrix(start()), s, 2) for n, s in members.items()}
    guests = {n: step(began[n], members[after(n)]) for n in NAMES}  # at the one after n
    expected = {}
    for name, silo in members.items():
        expert = guests[name] + 0.25 * (began[after(name)] - began[name])
        w = 0.3 * began[name] + 0.5 * expert + 0.2 * guests[before(name)]
        taught = soft_gradient(w, expert, silo, 2.0)
        expected[name] = w - RATE * (0.7 * taught + 0.3 * gradient(w, silo))
    assert_weights(carrier, expected)
    assert carrier.record.steps == {"local": 0, "overseas": 3, "distillation": 3}


@pytest.mark.parametrize(("steps", "overseas", "distil"), [(1, 1, 0), (2, 1, 1), (5, 3, 2)])
def test_mfd_shares_out_the_steps_of_a_round(steps: int, overseas: int, distil: int) -> None:
    for settings, expected in (
        (settings_of("mfd"), (0, overseas, distil)),
        (settings_of("mfd", split=False), (0, steps, steps)),
        (settings_of("mfd", home_training=True, distil_steps=7), (steps, overseas, 7)),
    ):
        record = play(settings, schedule_of("ring", steps=steps), 2).record
        counted = [record.steps[phase] / 3 for phase in ("local", "overseas", "distillation")]
        assert tuple(counted) == expected


def test_mfd_merging_last_averages_what_was_trained_apart(members: dict[str, Any]) -> None:
    settings = settings_of(
        "mfd",
        home_training=True,
        merge="last",
        distil_steps=0,
        overseas_steps=1,
        host_share=0,
        merge_experts=0.2,
        merge_guests=0.5,
    )
    carrier = play(settings, schedule_of("ring", steps=2), 2)
    began = {n: step(matrix(start()), s, 2) for n, s in members.items()}
    expected = {
        n: 0.3 * step(began[n], members[n], 2)
        + 0.2 * step(began[n], members[after(n)])
        + 0.5 * step(began[before(n)], members[n])
        for n in NAMES
    }
    assert_weights(carrier, expected)


def test_mfd_mixes_faster_than_gossip_on_a_ring() -> None:
    around = np.roll(np.eye(6), 1, axis=0)  # row i takes from the one before i
    gossip = (np.eye(6) + around) / 2
    mfd = (np.eye(6) + around + around.T) / 3
    second = [sorted(np.abs(np.linalg.eigvals(w)))[-2] for w in (gossip, mfd)]
    assert second == pytest.approx([np.cos(np.pi / 6), 2 / 3])


SIMILARITY = {"expert/b": 0.9, "expert/c": 0.4, "guest/b": 0.9}
SHARES = {"expert/b": 0.3, "expert/c": 0.3, "guest/b": 0.4}  # before the EMD


@pytest.mark.parametrize(
    ("weight", "omega"),
    [
        ("none", [1, 1, 1]),
        ("emd", [0.9, 0.4, 0.9]),
        ("sharpened", [1, np.exp(-5), 1]),
        ("uniform", [(2 + np.exp(-5)) / 3] * 3),
        ("inverse", (2 + np.exp(-5)) * np.array([4, 9, 4]) / 17),
    ],
)
def test_mfd_weighs_what_it_merges_by_emd(weight: str, omega: list[float]) -> None:
    settings = settings_of(
        "mfd", merge_experts=0.6, merge_guests=0.4, merge_weight=weight, merge_sharpness=0.1
    )
    assert isinstance(settings, MfdSettings)
    shares = merge_shares(settings, ["weights", *SIMILARITY], SIMILARITY)
    expected = {slot: SHARES[slot] * o for slot, o in zip(SIMILARITY, omega, strict=True)}
    assert shares == pytest.approx(expected)


def test_mfd_turns_down_an_expert_that_sees_other_things() -> None:
    # The maps of the linear model are its pixels, so that all experts are alike, S = 1.
    settings = settings_of("mfd", merge_weight="sharpened", distil_steps=0)
    plain = settings_of("mfd", distil_steps=0)
    ring = schedule_of("ring", steps=2)
    carrier = play(settings, ring, 2)
    assert_weights(carrier, all_weights(play(plain, ring, 2)))
    assert carrier.record.similarity == pytest.approx({(n, after(n)): 1.0 for n in NAMES})


def test_mfd_distils_from_the_expert_that_came_home(members: dict[str, Any]) -> None:
    distillation = {"weight": "none", "scope": "all", "beta": 0.7, "temperature": 2.0}
    settings = settings_of(
        "mfd",
        overseas_steps=1,
        host_share=0,
        merge_experts=0,
        merge_guests=0,
        distil_steps=2,
        distil_rate=0.5,
        distillation=distillation,
    )
    carrier = play(settings, schedule_of("ring"), 2)
    expected = {}
    for name, silo in members.items():
        w = step(matrix(start()), silo)
        expert = step(w, members[after(name)])
        for _ in range(2):
            taught = soft_gradient(w, expert, silo, 2.0)
            w = w - 0.5 * RATE * (0.7 * taught + 0.3 * gradient(w, silo))
        expected[name] = w
    assert_weights(carrier, expected)
    assert carrier.record.steps == {"local": 0, "overseas": 3, "distillation": 6}


@pytest.mark.parametrize(("form", "factor"), [("mean", 0.5), ("single", 1.0), ("double", 2.0)])
def test_mfd_sums_over_experts_once_or_twice(
    members: dict[str, Any], form: str, factor: float
) -> None:
    settings = settings_of(
        "mfd",
        preset="literal",
        distillation={"weight": "none", "sum": form, "beta": 1.0, "temperature": 2.0},
    )
    carrier = play(settings, schedule_of("complete"), 2)
    expected = {}
    for name, silo in members.items():
        w = step(matrix(start()), silo)
        experts = [step(w, other) for n, other in members.items() if n != name]
        taught = sum(soft_gradient(w, expert, silo, 2.0) for expert in experts)
        expected[name] = w - RATE * factor * taught
    assert_weights(carrier, expected)


def test_mfd_literal_leaves_a_silo_without_parameters_of_others() -> None:
    settings = settings_of("mfd", preset="literal")
    assert isinstance(settings, MfdSettings)
    assert (settings.merge_experts, settings.merge_guests) == (0, 0)
    assert settings.distillation.sum == "double"
    assert not settings.home_training


def test_what_the_guard_holds(members: dict[str, Any]) -> None:
    settings = settings_of(
        "mfd",
        split=False,
        distil_steps=0,
        overseas_guard=0.8,
        host_share=0,
        merge_experts=1,
        merge_guests=0,
    )
    carrier = play(settings, schedule_of("ring", steps=2), 2)
    expected = {}
    for name, silo in members.items():
        came, host = step(matrix(start()), silo, 2), members[after(name)]
        w = step(came, host)  # where it starts, the guard has no gradient yet
        expected[name] = w - RATE * (gradient(w, host) + 0.8 * soft_gradient(w, came, host, 2.0))
    assert_weights(carrier, expected)


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="must not exceed 1"):
        settings_of("mfd", merge_experts=0.6, merge_guests=0.6)


def test_a_wrong_key_of_an_algorithm_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'merge_guests'"):
        settings_of("mfd", merge_guest=0.1)
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        settings_of("mfd", distillation={"temprature": 2})


def test_time_of_a_round() -> None:
    roads = Roads(alike(NAMES), RoundSettings(model_mbit=1.0), step_ms=10.0)
    road = 4.0 + 1.0  # latency, and 1 Mbit over 1 Gbit/s
    ring, star = schedule_of("ring", steps=2), schedule_of("star", steps=2)

    def of(name: str, schedule: Schedule, round: int = 1, **values: Any) -> float:
        return ALGORITHMS[name].round_ms(settings_of(name, **values), schedule, roads, round)

    assert of("local", ring) == 20
    assert of("gossip", ring) == pytest.approx(20 + road)
    assert of("fedavg", star) == pytest.approx(20 + 2 * road)
    assert of("cdl", ring) == pytest.approx(20)
    assert of("consensus", ring) == pytest.approx(20 + 4 * (4.0 + 1 / 3))
    assert of("mfd", ring, round=0) == 20
    assert of("mfd", ring) == pytest.approx(10 + 10 + 2 * road)
    assert of("mfd", ring, split=False) == pytest.approx(20 + 20 + 2 * road)
    apart = {"home_training": True, "merge": "last", "distil_steps": 0}
    assert of("mfd", ring, split=False, **apart) == pytest.approx(20 + 20 + 2 * road)
