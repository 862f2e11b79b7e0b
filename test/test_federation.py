# SPDX-License-Identifier: Apache-2.0
"""Silos, carriers and what they move: streams, sums, distillation, prototypes, failures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federation_silos import (
    CLASSES,
    NAMES,
    RATE,
    SIDE,
    Linear,
    carrier_of,
    gradient,
    images_of,
    matrix,
    pixels,
    silos,
    softmax,
    start,
    step,
)
from torch import Tensor
from torch.nn import functional

from fedefm_core.emd import similarity
from fedefm_core.errors import FederationError
from fedefm_core.federation.carrier import InProcess
from fedefm_core.federation.data import LabelledImages, stream
from fedefm_core.federation.distillation import DistillationSettings, distillation_loss
from fedefm_core.federation.measure import measure
from fedefm_core.federation.prototypes import (
    ClassStatistics,
    PrototypeSettings,
    measure_classes,
    merge_tables,
    virtual_features,
)
from fedefm_core.federation.shelf import DiskShelf
from fedefm_core.federation.silo import Silo, Task, Trained, TrainingSettings, _model_contrast
from fedefm_core.federation.state import State, check_state, distance, state_bytes, weighted_sum
from fedefm_core.networks.foundation import FoundationOutput

RING = [("a", "b"), ("b", "c"), ("c", "a")]


def test_sums_and_distances_of_weights() -> None:
    one, two = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([4.0, 6.0])}
    assert weighted_sum([(0.5, one), (0.25, two)])["w"].tolist() == [1.5, 2.5]
    assert one["w"].tolist() == [1.0, 2.0]
    assert distance(one, two) == 5.0
    assert state_bytes(one) == 8
    with pytest.raises(FederationError, match="one silo at least"):
        weighted_sum([])


def test_weights_that_come_back_are_checked() -> None:
    like = {"w": torch.zeros(2)}
    check_state({"w": torch.ones(2)}, like, "The weights of the silo 'a'")
    for bad, reason in (
        ({}, "must have the network's names"),
        ({"w": torch.ones(3)}, r"the shape \(2,\)"),
        ({"w": torch.ones(2, dtype=torch.float64)}, "float64"),
        ({"w": torch.tensor([1.0, math.nan])}, "NaN"),
    ):
        with pytest.raises(FederationError, match=f"silo 'a'.*{reason}"):
            check_state(bad, like, "The weights of the silo 'a'")


def test_a_stream_depends_on_its_keys_alone() -> None:
    first = stream(1, "a", 3, "local").random(4)
    stream(1, "b", 3, "local").random(9)
    np.testing.assert_array_equal(stream(1, "a", 3, "local").random(4), first)
    for other in (
        stream(2, "a", 3, "local"),
        stream(1, "b", 3, "local"),
        stream(1, "a", 4, "local"),
    ):
        assert not np.array_equal(other.random(4), first)


def test_a_batch_holds_different_images_and_no_more_than_there_are() -> None:
    data = images_of(0, 5, 0)
    drawn = data.draw(stream(0, "x"), 3)
    assert len(set(drawn.tolist())) == 3
    assert sorted(data.draw(stream(0, "x"), 16).tolist()) == [0, 1, 2, 3, 4]


def silo_with(data: LabelledImages) -> Silo:
    return Silo("lonely", data, Linear(), TrainingSettings(), CLASSES, seed=0)


def test_a_silo_of_one_image_trains_and_one_of_none_is_refused() -> None:
    trained = silo_with(images_of(1, 1, 0)).train_local(start(), 0, Task(2))
    assert trained.steps == 2
    assert distance(trained.weights, start()) > 0
    with pytest.raises(FederationError, match="'lonely' holds no image"):
        silo_with(images_of(1, 0, 0))
    with pytest.raises(FederationError, match="labels of the silo 'lonely'"):
        silo_with(images_of(CLASSES, 2, 0))


def test_training_leaves_the_given_weights_and_torchs_generator_alone() -> None:
    given, silo = start(), silos()[0]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = silo.train_local(given, 1, Task(2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(given["head.weight"], start()["head.weight"])
    again = silo.train_local(given, 1, Task(2))
    assert torch.equal(first.weights["head.weight"], again.weights["head.weight"])


def test_momentum_survives_the_exchange_only_when_asked_to() -> None:
    for keep in (False, True):
        silo = silos(optimiser={"momentum": 0.5, "keep_state": keep})[0]
        once = silo.train_local(start(), 0, Task(1))
        twice = silo.train_local(once.weights, 1, Task(1))
        w = step(matrix(start()), silo)
        velocity = gradient(matrix(start()), silo)
        expected = w - RATE * (gradient(w, silo) + (0.5 * velocity if keep else 0))
        np.testing.assert_allclose(matrix(twice.weights), expected, rtol=2e-5, atol=2e-6)


def test_moon_contrasts_with_the_weights_before() -> None:
    z = torch.tensor([[1.0, 0.0]])
    output = FoundationOutput(z, z, z[None], z[None])
    opposite = FoundationOutput(z, -z, z[None], z[None])
    loss = _model_contrast(output, output, opposite, temperature=0.5)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-4)), rel=1e-5)


# Distillation


def outputs(theta: Tensor, x_bnc: Tensor, head: Tensor) -> FoundationOutput:
    """A model whose map is linear in its parameters."""
    late_bnc = x_bnc @ theta
    features_bd = late_bnc.mean(1)
    return FoundationOutput(features_bd @ head, features_bd, late_bnc, late_bnc[:, ::2])


@pytest.fixture
def case() -> dict[str, Any]:
    torch.manual_seed(0)
    make = {"dtype": torch.float64}
    x, head = torch.randn(3, 6, 4, **make), torch.randn(5, CLASSES, **make)
    experts = [outputs(torch.randn(4, 5, **make), x, head) for _ in range(2)]
    theta = torch.randn(4, 5, **make)
    return {"x": x, "head": head, "experts": experts, "theta": theta}


def loss_of(theta: Tensor, case: dict[str, Any], **values: Any) -> Tensor:
    settings = DistillationSettings(**{"scope": "all", "emd_samples": 3, **values})
    student = outputs(theta, case["x"], case["head"])
    labels, absent = torch.tensor([0, 1, 2]), torch.tensor([False, True, True])
    return distillation_loss(student, labels, case["experts"], absent, settings).loss


def slope(case: dict[str, Any], **values: Any) -> Tensor:
    theta = case["theta"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(theta, case, **values), theta)
    return gradient


def differences(function: Any, theta: Tensor) -> Tensor:
    result = torch.zeros_like(theta)
    for index in np.ndindex(*theta.shape):
        moved = torch.zeros_like(theta)
        moved[index] = 1e-6
        result[index] = (function(theta + moved) - function(theta - moved)) / 2e-6
    return result


def alike(theta: Tensor, case: dict[str, Any]) -> Tensor:
    """(E,) similarity of the student to each expert."""
    late = outputs(theta, case["x"], case["head"]).late_bnc
    return torch.stack([similarity(late, expert.late_bnc).mean() for expert in case["experts"]])


def unweighted(theta: Tensor, case: dict[str, Any], expert: int) -> Tensor:
    alone = {**case, "experts": [case["experts"][expert]]}
    return loss_of(theta, alone, weight="none", sum="single")


def test_a_detached_weight_scales_the_step(case: dict[str, Any]) -> None:
    fixed = alike(case["theta"], case)

    def scaled(theta: Tensor) -> Tensor:
        return sum(fixed[e] * unweighted(theta, case, e) for e in range(2))  # type: ignore[return-value]

    expected = differences(scaled, case["theta"])
    torch.testing.assert_close(
        slope(case, weight="detached", sum="single"), expected, rtol=1e-6, atol=1e-7
    )


def test_a_product_is_differentiated_through_the_weight_too(case: dict[str, Any]) -> None:
    def product(theta: Tensor) -> Tensor:
        weights = alike(theta, case)
        return sum(weights[e] * unweighted(theta, case, e) for e in range(2))  # type: ignore[return-value]

    expected = differences(product, case["theta"])
    found = slope(case, weight="product", sum="single")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(found, slope(case, weight="detached", sum="single"), rtol=1e-3)


def test_a_pull_raises_the_similarity(case: dict[str, Any]) -> None:
    def pulled(theta: Tensor) -> Tensor:
        return 0.3 * (1 - alike(theta, case).mean())

    expected = slope(case, weight="detached") + differences(pulled, case["theta"])
    found = slope(case, weight="pull", pull=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_controls_keep_the_sum_of_the_weights(case: dict[str, Any]) -> None:
    weights = alike(case["theta"], case)
    single = torch.stack([unweighted(case["theta"], case, e) for e in range(2)])

    def loss(kind: str) -> float:
        return float(loss_of(case["theta"], case, weight=kind, sum="single", sharpness=0.1))

    inverse = weights.flip(0)  # of two, 1 / S in proportion is S of the other
    sharp = 2 * (weights / 0.1).softmax(0)
    assert loss("uniform") == pytest.approx(float((weights.mean() * single).sum()))
    assert loss("inverse") == pytest.approx(float((inverse * single).sum()))
    assert loss("sharpened") == pytest.approx(float((sharp * single).sum()))


def test_weights_of_samples_and_of_the_middle_map(case: dict[str, Any]) -> None:
    theta = case["theta"]
    student = outputs(theta, case["x"], case["head"])
    expert = case["experts"][0]
    alone = {**case, "experts": [expert]}
    each = functional.cross_entropy(student.logits_bk, torch.tensor([0, 1, 2]), reduction="none")
    by_sample = similarity(student.late_bnc, expert.late_bnc)
    found = loss_of(theta, alone, beta=0.0, weight_of="samples")
    torch.testing.assert_close(found, (by_sample * each).mean())
    middle = similarity(student.mid_bnc[:1], expert.mid_bnc[:1])
    found = loss_of(theta, alone, beta=0.0, map="mid", emd_samples=1)
    torch.testing.assert_close(found, middle[0] * each.mean())


def test_kinds_at_home_are_not_taught_when_the_scope_is_what_is_absent(
    case: dict[str, Any],
) -> None:
    head = case["head"].clone().requires_grad_()
    changed = {**case, "head": head}
    loss = loss_of(case["theta"], changed, scope="absent", weight="none", beta=1.0)
    (slopes,) = torch.autograd.grad(loss, head)
    assert slopes[:, 0].abs().max() == 0
    assert slopes[:, 1:].abs().max() > 1e-3


def test_features_are_taught_without_a_word_to_the_head(case: dict[str, Any]) -> None:
    student = outputs(case["theta"], case["x"], case["head"])
    alone = {**case, "experts": [case["experts"][0]]}
    found = loss_of(case["theta"], alone, scope="features", weight="none", beta=1.0)
    u, v = student.late_bnc.numpy(), case["experts"][0].late_bnc.numpy()
    lengths = np.linalg.norm(u, axis=2) * np.linalg.norm(v, axis=2)
    assert float(found) == pytest.approx(1 - ((u * v).sum(2) / lengths).mean())


# Prototypes


def test_statistics_of_kinds() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 5.0]])
    found = measure_classes(features, torch.tensor([1, 1, 0]), 3, round=4)
    assert found.counts_k.tolist() == [1, 2, 0]
    assert found.mean_kd.tolist() == [[5, 5], [2, 2], [0, 0]]
    assert found.variance_kd.tolist() == [[0, 0], [1, 4], [0, 0]]
    assert found.bytes() == 2 * (2 + 2 + 1) * 4


def test_newer_statistics_replace_older_ones() -> None:
    old = measure_classes(torch.ones(1, 2), torch.tensor([0]), 3, round=1)
    new = replace(old, round=2)
    assert merge_tables({"b": old, "a": new}, {"b": new, "a": old}) == {"a": new, "b": new}


def test_virtual_features_are_of_kinds_that_are_absent_and_known() -> None:
    known = ClassStatistics(
        0, torch.tensor([2.0, 0.0, 3.0]), torch.arange(6.0).view(3, 2), torch.full((3, 2), 0.25)
    )
    rng = stream(0, "virtual")
    absent = torch.tensor([False, True, True])
    drawn = virtual_features({"b": known}, absent, 400, rng)
    assert drawn is not None
    features, labels = drawn
    assert set(labels.tolist()) == {2}
    torch.testing.assert_close(features.mean(0), torch.tensor([4.0, 5.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(features.std(0), torch.tensor([0.5, 0.5]), atol=0.1, rtol=0)
    assert virtual_features({}, absent, 4, rng) is None
    assert virtual_features({"b": known}, ~absent & False, 4, rng) is None


def test_prototypes_travel_along_links_and_teach_the_head() -> None:
    members = silos(prototypes=PrototypeSettings(weight=0.5, samples=32))
    carrier = carrier_of(members)
    carrier.begin(0, {})
    carrier.share_prototypes([("a", "b")])
    assert set(members[0].table) == set(members[1].table) == {"a", "b"}
    assert members[2].table == {}
    assert carrier.record.traffic == {("a", "b"): (4 + 4 + 1) * 4, ("b", "a"): (4 + 4 + 1) * 4}
    carrier.train_local(Task(1))
    # Silo a holds kind 0 alone, and knows of kind 1: it learns to tell that from the others.
    plain = step(matrix(start()), members[0])
    moved = matrix(carrier.weights("a")) - plain
    mean = pixels(members[1]).mean(0)
    assert (moved @ mean).argmax() == 1
    np.testing.assert_allclose(
        matrix(carrier.weights("c")), step(matrix(start()), members[2]), rtol=2e-5, atol=2e-6
    )


# Carriers


class Broken(Silo):
    """Returns what it should not."""

    def train_local(
        self, weights: State, round: int, task: Task, previous: State | None = None
    ) -> Trained:
        return Trained({"head.weight": torch.full((CLASSES, SIDE * SIDE), math.nan)}, 0.1, 1)


class Misshapen(Silo):
    def train_overseas(self, expert: State, round: int, owner: str, task: Task) -> Trained:
        return Trained({"head.weight": torch.zeros(1, 1)}, 0.1, 1)


def one_as(cls: type[Silo], number: int) -> list[Silo]:
    members = silos()
    old = members[number]
    members[number] = cls(old.name, old.data, old.network, old.settings, CLASSES, old.seed)
    return members


def test_a_silo_that_returns_nan_is_named_and_left_out() -> None:
    carrier = carrier_of(one_as(Broken, 1))
    carrier.begin(4, {})
    carrier.train_local(Task(1))
    assert "silo 'b' in round 4" in carrier.record.failures["b"]
    assert "NaN" in carrier.record.failures["b"]
    assert carrier.present == ["a", "c"]
    carrier.pool(lambda silo: 1.0, server=False)
    mean = (step(matrix(start()), silos()[0]) + step(matrix(start()), silos()[2])) / 2
    np.testing.assert_allclose(matrix(carrier.weights("a")), mean, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(matrix(carrier.weights("b")), matrix(start()))


def test_a_host_that_returns_wrong_shapes_is_left_out() -> None:
    carrier = carrier_of(one_as(Misshapen, 1))
    carrier.begin(2, {})
    carrier.visit(RING, Task(1))
    assert list(carrier.record.failures) == ["b"]
    assert "shape" in carrier.record.failures["b"]
    assert carrier.record.losses["overseas"].keys() == {"c->a"}
    carrier.mix(lambda silo, slots: {slot: 0.5 for slot in slots if slot != "weights"})
    np.testing.assert_array_equal(matrix(carrier.weights("b")), matrix(start()))


def test_a_policy_may_be_to_stop() -> None:
    carrier = carrier_of(one_as(Broken, 2), on_failure="stop")
    carrier.begin(0, {})
    with pytest.raises(FederationError, match="silo 'c' in round 0"):
        carrier.train_local(Task(1))


def test_a_loss_that_is_not_finite_names_silo_and_round() -> None:
    silo = silos()[0]
    huge = {"head.weight": torch.full((CLASSES, SIDE * SIDE), math.inf)}
    with pytest.raises(FederationError, match=r"silo 'a' became .* in round 6"):
        silo.train_local(huge, 6, Task(1))


def test_a_silo_that_drops_out_trains_at_home_and_reaches_nobody() -> None:
    carrier = carrier_of(silos())
    carrier.begin(1, {"b": "The silo 'b' dropped out of round 1"})
    carrier.train_local(Task(1))
    carrier.send(RING)
    carrier.mix(lambda silo, slots: {slot: 0.5 for slot in slots if slot.startswith("inbox")})
    carrier.end()
    trained = {silo.name: step(matrix(start()), silo) for silo in silos()}
    found = {name: matrix(carrier.weights(name)) for name in NAMES}
    np.testing.assert_allclose(found["b"], trained["b"], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(found["c"], trained["c"], rtol=2e-5, atol=2e-6)
    mixed = (trained["a"] + trained["c"]) / 2
    np.testing.assert_allclose(found["a"], mixed, rtol=2e-5, atol=2e-6)
    assert carrier.present == ["a", "c"]


def test_weights_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    kept = []
    for shelf in (None, DiskShelf(tmp_path)):
        carrier = carrier_of(silos()) if shelf is None else InProcess(silos(), start(), shelf)
        for round in range(2):
            carrier.begin(round, {})
            carrier.visit(RING, Task(1))
            carrier.train_local(Task(1))
            carrier.send(RING)
            carrier.mix(lambda silo, slots: {s: 0.2 for s in slots if s != "weights"})
            carrier.end()
        kept.append([carrier.weights(name)["head.weight"] for name in NAMES])
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    assert len(list(tmp_path.iterdir())) == len(NAMES)


def test_accuracy_is_that_of_the_definition() -> None:
    members = silos()
    corpora = {silo.name: silo.data for silo in members}
    found = measure(members[0].network, start(), corpora, 2, torch.device("cpu"))
    w = matrix(start())
    right = {s.name: (pixels(s) @ w.T).argmax(1) == s.data.labels for s in members}
    assert found["by_corpus"] == {name: pytest.approx(r.mean()) for name, r in right.items()}
    assert found["accuracy"] == pytest.approx(np.concatenate(list(right.values())).mean())
    chances = [softmax(pixels(s) @ w.T)[:, s.data.labels[0]] for s in members]
    assert found["loss"] == pytest.approx(-np.log(np.concatenate(chances)).mean(), rel=1e-5)
