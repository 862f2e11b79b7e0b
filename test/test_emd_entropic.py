# SPDX-License-Identifier: Apache-2.0
"""The entropic solver: closed forms, gradients, convergence, and what upstream has yet to mend."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")
geomloss_ot = pytest.importorskip("geomloss.ot", reason="needs the extra 'train'")

from fedefm_core.emd import TransportError, entropic, exact  # noqa: E402
from fedefm_core.errors import ConfigError  # noqa: E402

DOUBLE = torch.float64


def random_problems(seed: int, batch: int = 2, rows: int = 5, columns: int = 6) -> list:
    """Costs in [0, 1) and masses of sum 1, ready to be differentiated."""
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(batch, rows, columns, generator=generator, dtype=DOUBLE)
    a = torch.rand(batch, rows, generator=generator, dtype=DOUBLE) + 0.1
    b = torch.rand(batch, columns, generator=generator, dtype=DOUBLE) + 0.1
    problems = (cost, a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True))
    return [tensor.requires_grad_() for tensor in problems]


def test_two_by_two_in_closed_form() -> None:
    # Uniform masses, cost 0 on the diagonal and 1 off it: x = ½ [[s, 1−s], [1−s, s]] with
    # s = 1 / (1 + exp(−1 / ε)), and V_ε = −ε ln((1 + exp(−1 / ε)) / 2).
    eps = 0.4
    cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=DOUBLE, requires_grad=True)
    half = torch.full((1, 2), 0.5, dtype=DOUBLE)
    value = entropic(cost, half, half, eps=eps, tolerance=1e-12)
    assert value.item() == pytest.approx(-eps * math.log((1 + math.exp(-1 / eps)) / 2))
    (plan,) = torch.autograd.grad(value.sum(), cost)
    stay = 0.5 / (1 + math.exp(-1 / eps))
    expected = torch.tensor([[[stay, 0.5 - stay], [0.5 - stay, stay]]], dtype=DOUBLE)
    torch.testing.assert_close(plan, expected)


@pytest.mark.parametrize("eps", [0.3, 0.05])
def test_it_lies_above_the_exact_cost_by_at_most_the_entropy(eps: float) -> None:
    cost, a, b = (tensor.detach() for tensor in random_problems(0, batch=8))
    gap = entropic(cost, a, b, eps=eps, tolerance=1e-9) - exact(cost, a, b)
    assert (gap > 0).all()
    entropy = -(a * a.log()).sum(1)
    assert (gap <= eps * entropy).all()


def test_costs_and_masses_scale() -> None:
    cost, a, b = (tensor.detach() for tensor in random_problems(1))
    once = entropic(cost, a, b, tolerance=1e-10)
    ten = entropic(10 * cost, a, b, eps=10 * 0.1, tolerance=1e-10)
    torch.testing.assert_close(ten, 10 * once)
    torch.testing.assert_close(entropic(cost, 10 * a, 10 * b, tolerance=1e-10), 10 * once)


@pytest.mark.parametrize("eps", [0.2, 0.05])
def test_gradient_is_that_of_finite_differences(eps: float) -> None:
    cost, a, b = random_problems(2)
    logits = [a.detach().log().requires_grad_(), b.detach().log().requires_grad_()]
    leaves = [cost, *logits]

    def value(*leaves: torch.Tensor) -> torch.Tensor:
        return entropic(
            leaves[0], 3 * leaves[1].softmax(1), 3 * leaves[2].softmax(1), eps=eps, tolerance=1e-11
        ).sum()

    generator = torch.Generator().manual_seed(3)
    found = torch.autograd.grad(value(*leaves), leaves)
    for index, gradient in enumerate(found):
        for _ in range(4):
            way = torch.randn(gradient.shape, generator=generator, dtype=DOUBLE)
            step, moved = 1e-5, []
            for sign in (1, -1):
                there = [leaf.detach() for leaf in leaves]
                there[index] = there[index] + sign * step * way
                moved.append(value(*there).item())
            expected = (moved[0] - moved[1]) / (2 * step)
            assert (gradient * way).sum().item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("eps", [0.1, 0.03])
def test_the_plan_meets_the_marginals(eps: float) -> None:
    cost, a, b = random_problems(4, batch=5, rows=20, columns=30)
    value = entropic(cost, a, b, eps=eps, tolerance=1e-5)
    plan, u, v = torch.autograd.grad(value.sum(), (cost, a, b))
    assert (plan.sum(2) - a).abs().sum(1).max() <= 1e-5
    assert (plan.sum(1) - b).abs().sum(1).max() <= 1e-5
    torch.testing.assert_close((a * u).sum(1), (b * v).sum(1))


def test_points_without_mass_change_nothing() -> None:
    cost, a, b = (tensor.detach() for tensor in random_problems(5))
    wide = torch.cat([cost, cost.new_ones(2, 1, 6)], dim=1)
    wide = torch.cat([wide, cost.new_zeros(2, 6, 1)], dim=2)
    padded = [torch.cat([mass, mass.new_zeros(2, 1)], dim=1) for mass in (a, b)]
    leaves = [tensor.requires_grad_() for tensor in (wide, *padded)]
    value = entropic(*leaves, eps=0.01, tolerance=1e-9)
    narrow = entropic(cost, a, b, eps=0.01, tolerance=1e-9)
    torch.testing.assert_close(value, narrow, rtol=1e-6, atol=0)
    plan, *duals = torch.autograd.grad(value.sum(), leaves)
    assert (plan[:, -1] == 0).all()
    assert (plan[:, :, -1] == 0).all()
    assert all(dual.isfinite().all() for dual in duals)


def test_one_that_has_not_converged_is_refused() -> None:
    with pytest.raises(
        TransportError,
        match=r"meet the marginals to 1e-09 .got .* after 3 updates at eps = 0.001.: raise 'eps'",
    ):
        entropic(*random_problems(6), eps=1e-3, tolerance=1e-9, max_updates=3)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"eps": 0.0}, "'eps' must be a finite number above 0 .got 0.0"),
        ({"eps": math.inf}, "'eps' must be a finite number above 0 .got inf"),
        ({"tolerance": math.nan}, "'tolerance' must be a finite number above 0 .got nan"),
        ({"max_updates": 0}, "'max_updates' must be 1 or more .got 0"),
    ],
)
def test_impossible_settings_are_refused(setting: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        entropic(*random_problems(7), **setting)


def test_upstream_s_gradient_is_still_doubled() -> None:
    """Fails when geomloss mends its gradient: then see whether our own function may go."""
    cost, a, b = random_problems(8, batch=1)
    result = geomloss_ot.solve_batch(cost, a=a, b=b, reg=0.2, max_iter=2000)
    (theirs,) = torch.autograd.grad(result.value.sum(), cost)
    (ours,) = torch.autograd.grad(entropic(cost, a, b, eps=0.2, tolerance=1e-9).sum(), cost)
    ratio = ((theirs * ours).sum() / (ours * ours).sum()).item()
    assert 1.9 < ratio < 2.1, f"geomloss gave {ratio:.3f} times the gradient; it used to give 2"


def test_upstream_still_stops_unconverged() -> None:
    """Fails when geomloss meets the marginals by itself: then the finishing loop may go."""
    cost, a, b = (tensor.detach() for tensor in random_problems(9, rows=20, columns=20))
    plan = geomloss_ot.solve_batch(cost, a=a, b=b, reg=0.01, max_iter=1000).plan
    assert (plan.sum(2) - a).abs().sum(1).max() > 1e-3
