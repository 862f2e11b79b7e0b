# SPDX-License-Identifier: Apache-2.0
"""The exact solver and the similarity: closed forms, HiGHS as a peer, gradients, refusals."""

from __future__ import annotations

import itertools
import logging
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

torch = pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("ot", reason="needs the extra 'train'")

from fedefm_core.emd import TransportError, entropic, exact, similarity  # noqa: E402
from fedefm_core.errors import ConfigError, FedefmError  # noqa: E402

DOUBLE = torch.float64
SOLVERS = [exact, entropic]


def random_problems(seed: int, batch: int, rows: int, columns: int) -> tuple:
    """Costs in [0, 1) and masses of sum 1, none of them small."""
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(batch, rows, columns, generator=generator, dtype=DOUBLE)
    a = torch.rand(batch, rows, generator=generator, dtype=DOUBLE) + 0.1
    b = torch.rand(batch, columns, generator=generator, dtype=DOUBLE) + 0.1
    return cost, a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)


def random_maps(seed: int, batch: int = 2, positions: int = 6, channels: int = 5) -> tuple:
    """Two signed dense maps that have something in common."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, positions, channels)
    u = torch.randn(shape, generator=generator, dtype=DOUBLE) + 0.5
    return u, u + 0.7 * torch.randn(shape, generator=generator, dtype=DOUBLE)


def highs(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple:
    """Value, plan and centred duals of one problem, by a general solver of linear programs."""
    rows, columns = cost.shape
    row_sums = np.kron(np.eye(rows), np.ones(columns))
    column_sums = np.kron(np.ones(rows), np.eye(columns))
    solved = linprog(
        cost.ravel(),
        A_eq=np.vstack([row_sums, column_sums]),
        b_eq=np.concatenate([a, b]),
        method="highs",
    )
    assert solved.status == 0
    u, v = np.split(solved.eqlin.marginals, [rows])
    shift = (b @ v - a @ u) / 2
    return solved.fun, solved.x.reshape(cost.shape), u + shift, v - shift


def gradients(value: torch.Tensor, *leaves: torch.Tensor) -> list:
    return list(torch.autograd.grad(value.sum(), leaves))


def finite_differences(function, leaf: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    """Central differences in each entry of a leaf; the function must treat a batch one by one."""
    result = torch.zeros_like(leaf)
    for index in itertools.product(*(range(size) for size in leaf.shape[1:])):
        moved = []
        for sign in (1, -1):
            there = leaf.detach().clone()
            there[(slice(None), *index)] += sign * step
            moved.append(function(there).detach())
        result[(slice(None), *index)] = (moved[0] - moved[1]) / (2 * step)
    return result


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# --- the value: closed forms -------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 9))
def test_a_permutation_costs_what_its_cheapest_matching_costs(seed: int, points: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(points, generator=generator)
    cost = 1 + torch.rand(1, points, points, generator=generator, dtype=DOUBLE)
    cost[0, torch.arange(points), order] = 0.25
    cost.requires_grad_()
    uniform = torch.full((1, points), 1 / points, dtype=DOUBLE)
    value = exact(cost, uniform, uniform)
    assert value.item() == pytest.approx(0.25, rel=1e-12)
    (plan,) = gradients(value, cost)
    expected = torch.zeros(points, points, dtype=DOUBLE)
    expected[torch.arange(points), order] = 1 / points
    torch.testing.assert_close(plan[0], expected)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_dirac_pays_the_way_to_every_point(solver) -> None:
    cost, _, b = random_problems(0, batch=3, rows=1, columns=7)
    a = torch.ones(3, 1, dtype=DOUBLE)
    # There is only one plan, a ⊗ b, so that entropy costs nothing.
    torch.testing.assert_close(solver(cost, a, b), (cost[:, 0] * b).sum(1))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_dirac_among_points_without_mass(solver) -> None:
    cost, _, b = random_problems(1, batch=3, rows=5, columns=7)
    a = torch.zeros(3, 5, dtype=DOUBLE)
    a[:, 2] = 1
    torch.testing.assert_close(solver(cost, a, b), (cost[:, 2] * b).sum(1))


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12))
def test_on_a_line_the_cost_is_the_area_between_the_distributions(
    seed: int, rows: int, columns: int
) -> None:
    _, a, b = random_problems(seed, 1, rows, columns)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, generator=generator, dtype=DOUBLE)
    y = torch.randn(columns, generator=generator, dtype=DOUBLE)
    value = exact((x[:, None] - y[None, :]).abs()[None], a, b)
    points, order = torch.cat([x, y]).sort()
    surplus = torch.cat([a[0], -b[0]])[order].cumsum(0)
    area = (surplus[:-1].abs() * points.diff()).sum()
    assert value.item() == pytest.approx(area.item(), abs=1e-12)


def test_two_by_two_by_hand() -> None:
    # 0.3 of the first point's 0.7 stays at cost 0, and so on: x = [[0.4, 0.3], [0, 0.3]].
    cost = torch.tensor([[[0.0, 1.0], [2.0, 0.0]]], dtype=DOUBLE)
    a, b = torch.tensor([[0.7, 0.3]]).double(), torch.tensor([[0.4, 0.6]]).double()
    assert exact(cost, a, b).item() == pytest.approx(0.3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_sides_may_be_exchanged(solver) -> None:
    cost, a, b = random_problems(2, 4, 6, 8)
    exchanged = solver(cost.mT, b, a)
    # Sinkhorn stops within its tolerance of the marginals, on either side.
    torch.testing.assert_close(
        solver(cost, a, b), exchanged, rtol=1e-12 if solver is exact else 1e-3, atol=0
    )


@pytest.mark.parametrize("factor", [1e-12, 0.1, 10.0, 1e12])
def test_costs_and_masses_scale(factor: float) -> None:
    cost, a, b = random_problems(3, 2, 6, 8)
    once = exact(cost, a, b)
    torch.testing.assert_close(exact(factor * cost, a, b), factor * once, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        exact(cost, factor * a, factor * b), factor * once, rtol=1e-12, atol=0
    )


def test_a_constant_on_every_way_is_paid_once() -> None:
    cost, a, b = random_problems(4, 2, 6, 8)
    torch.testing.assert_close(exact(cost - 3, a, b), exact(cost, a, b) - 3)


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (4, 9)])
def test_agrees_with_highs(rows: int, columns: int) -> None:
    leaves = [t.requires_grad_() for t in random_problems(5, 6, rows, columns)]
    value = exact(*leaves)
    plan, u, v = gradients(value, *leaves)
    for index, problem in enumerate(zip(*(t.detach().numpy() for t in leaves), strict=True)):
        expected = highs(*problem)
        found = value[index].item(), plan[index], u[index], v[index]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-9)


# --- the gradient of the cost ------------------------------------------------------------------


def test_gradient_in_cost_and_marginals_is_that_of_finite_differences() -> None:
    cost, a, b = random_problems(6, 2, 4, 5)
    logits = {"a": a.log(), "b": b.log()}

    def value(cost=cost, a=logits["a"], b=logits["b"]):
        return exact(cost, 3 * a.softmax(1), 3 * b.softmax(1))

    leaves = {"cost": cost, **logits}
    for name, start in leaves.items():
        leaf = start.clone().requires_grad_()
        (gradient,) = gradients(value(**{name: leaf}), leaf)
        expected = finite_differences(lambda there, name=name: value(**{name: there}), start)
        assert relative_error(gradient, expected) < 1e-6, name


def test_duals_are_centred_and_carry_the_value() -> None:
    cost, a, b = random_problems(7, 3, 6, 8)
    leaves = [t.requires_grad_() for t in (cost, 2 * a, 2 * b)]
    value = exact(*leaves)
    _, u, v = gradients(value, *leaves)
    for mass, dual in ((leaves[1], u), (leaves[2], v)):
        torch.testing.assert_close((mass * dual).sum(1), value / 2)


def test_a_point_without_mass_knows_the_price_of_its_first_grain() -> None:
    cost, a, b = random_problems(8, 1, 5, 6)
    a[:, 1], b[:, 4] = 0, 0
    a, b = (t / t.sum(1, keepdim=True) for t in (a, b))

    def value(grain: float, side: int) -> torch.Tensor:
        masses = [a.clone(), b.clone()]
        masses[side][:, (1, 4)[side]] += grain
        masses = [t / t.sum(1, keepdim=True) for t in masses]
        return exact(cost, *masses)

    leaves = [a.clone().requires_grad_(), b.clone().requires_grad_()]
    normalised = [t / t.sum(1, keepdim=True) for t in leaves]
    for side, gradient in enumerate(gradients(exact(cost, *normalised), *leaves)):
        grain = 1e-6
        expected = (value(grain, side) - value(0, side)) / grain
        assert gradient[0, (1, 4)[side]].item() == pytest.approx(expected.item(), rel=1e-4)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedefm_core.emd.network_simplex.THREADS_FROM_COSTS", 0)
    problems = random_problems(9, 7, 6, 8)
    leaves = [t.requires_grad_() for t in problems]
    results = [
        (exact(*leaves, threads=n), gradients(exact(*leaves, threads=n), *leaves))
        for n in (1, 3, 0)
    ]
    for value, found in results[1:]:
        assert torch.equal(value, results[0][0])
        assert all(torch.equal(x, y) for x, y in zip(found, results[0][1], strict=True))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
def test_any_float_outside(solver, dtype: torch.dtype) -> None:
    problems = random_problems(10, 3, 6, 8)
    leaves = [t.to(dtype).requires_grad_() for t in problems]
    value = solver(*leaves)
    assert value.dtype == dtype
    assert all(g.dtype == dtype for g in gradients(value, *leaves))
    torch.testing.assert_close(
        value.double(), solver(*problems), rtol=20 * torch.finfo(dtype).eps, atol=0
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_empty_batch_is_no_error(solver) -> None:
    leaves = [t[:0].requires_grad_() for t in random_problems(11, 1, 3, 4)]
    value = solver(*leaves)
    assert value.shape == (0,)
    assert [g.shape for g in gradients(value, *leaves)] == [(0, 3, 4), (0, 3), (0, 4)]


# --- refusals ----------------------------------------------------------------------------------


def spoil(name: str, index: tuple, number: float) -> dict:
    problems = dict(zip(("cost_bnm", "a_bn", "b_bm"), random_problems(12, 4, 3, 5), strict=True))
    problems[name][index] = number
    return problems


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("problems", "sentence"),
    [
        (
            spoil("cost_bnm", (2, 0, 1), torch.nan),
            "'cost' must be finite .* in problem 2 of 0 to 3",
        ),
        (spoil("cost_bnm", (0, 2, 4), torch.inf), "'cost' must be finite .* in problem 0"),
        (spoil("a_bn", (1, 0), torch.nan), "'a' must be finite .* in problem 1"),
        (spoil("b_bm", (1, 0), torch.inf), "'b' must be finite .* in problem 1"),
        (spoil("a_bn", (3, 1), -0.25), "'a' must not hold negative mass .got -0.25 in problem 3"),
        (
            spoil("b_bm", (3,), 0.0),
            "'b' must hold some mass .got zero at every point in problem 3",
        ),
        (
            spoil("b_bm", (1, 0), 7.0),
            "'a' and 'b' must hold the same mass .got 1 and 7.* problem 1",
        ),
    ],
)
def test_impossible_problems_are_refused(solver, problems: dict, sentence: str) -> None:
    with pytest.raises(TransportError, match=sentence):
        solver(**problems)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c, a, b: (c[0], a, b), r"'cost' must be of shape .*got \(3, 5\)"),
        (lambda c, a, b: (c[:, :0], a[:, :0], b), r"at least one point a side .got \(4, 0, 5\)"),
        (lambda c, a, b: (c, b, a), r"'a' must be of shape \(4, 3\) .*got \(4, 5\)"),
        (lambda c, a, b: (c, a, b[:3]), r"'b' must be of shape \(4, 5\) .*got \(3, 5\)"),
        (lambda c, a, b: (c, a.int(), b), "'a' must hold floating point numbers .got torch.int32"),
        (lambda c, a, b: (c, a, b.to("meta")), r"'b' must be on the device .*cpu \(got meta\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(solver, change, sentence: str) -> None:
    with pytest.raises(TransportError, match=sentence):
        solver(*change(*random_problems(13, 4, 3, 5)))


def test_negative_threads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'threads' must be 0 .one a CPU. or more .got -1"):
        exact(*random_problems(14, 1, 2, 2), threads=-1)


def test_a_solver_that_gives_up_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedefm_core.emd.network_simplex.MAX_PIVOTS", 1)
    with (
        pytest.warns(UserWarning, match="numItermax"),
        pytest.raises(TransportError, match="network simplex found no optimal plan"),
    ):
        exact(*random_problems(15, 1, 9, 9))


def test_its_errors_are_ours() -> None:
    assert issubclass(TransportError, FedefmError)


# --- the similarity ----------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 6))
def test_a_map_is_like_itself(seed: int, positions: int, channels: int) -> None:
    u, _ = random_maps(seed, 2, positions, channels)
    torch.testing.assert_close(similarity(u, u), torch.ones(2, dtype=DOUBLE))


def test_positions_may_be_permuted() -> None:
    u, v = random_maps(20)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(similarity(u, u[:, order]), torch.ones(2, dtype=DOUBLE))
    torch.testing.assert_close(similarity(u[:, order], v), similarity(u, v))


def test_it_is_symmetric_and_blind_to_scale() -> None:
    u, v = random_maps(21)
    torch.testing.assert_close(similarity(v, u), similarity(u, v))
    torch.testing.assert_close(similarity(10 * u, v), similarity(u, v))
    torch.testing.assert_close(similarity(u, v * 1e-9), similarity(u, v))


def test_one_position_leaves_the_cosine() -> None:
    u, v = random_maps(22, positions=1)
    v = v * (u * v).sum(2, keepdim=True).sign()  # towards u, so that there is mass
    torch.testing.assert_close(similarity(u, v), torch.cosine_similarity(u[:, 0], v[:, 0], dim=1))


def test_the_equation_by_hand() -> None:
    # mean v = (1, 0.5): a ∝ (1, 0.5); mean u = (0.5, 0.5): b ∝ (0.5, 1). Cosines 1, √½; 0, √½.
    u = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=DOUBLE)
    v = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]], dtype=DOUBLE)
    # ⅓ goes from u_0 to v_0 at cosine 1; the rest, ⅔, comes to v_1 at cosine √½.
    expected = 1 / 3 + 2 / 3 * 0.5**0.5
    assert similarity(u, v).item() == pytest.approx(expected, rel=1e-12)


def test_agrees_with_highs_through_the_definition() -> None:
    u, v = random_maps(23, batch=3)
    found = similarity(u, v).numpy()
    for index in range(3):
        p, q = u[index].numpy(), v[index].numpy()
        cosine = p @ q.T / np.outer(np.linalg.norm(p, axis=1), np.linalg.norm(q, axis=1))
        a, b = np.maximum(0, p @ q.mean(0)), np.maximum(0, q @ p.mean(0))
        _, plan, _, _ = highs(1 - cosine, a / a.sum(), b / b.sum())
        assert found[index] == pytest.approx((cosine * plan).sum(), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_through_the_features_is_that_of_finite_differences(seed: int) -> None:
    u, v = (t.requires_grad_() for t in random_maps(seed))
    found = gradients(similarity(u, v), u, v)
    step = 1e-6
    by_u = finite_differences(lambda there: similarity(there, v.detach()), u, step)
    by_v = finite_differences(lambda there: similarity(u.detach(), there), v, step)
    assert relative_error(found[0], by_u) < 1e-6
    assert relative_error(found[1], by_v) < 1e-6


def test_the_marginals_are_part_of_the_gradient() -> None:
    u, v = (t.requires_grad_() for t in random_maps(24))
    (whole,) = gradients(similarity(u, v), u)
    (detached,) = gradients(
        similarity(u, v, transport=lambda c, a, b: exact(c, a.detach(), b.detach())), u
    )
    assert relative_error(detached, whole) > 0.05


def test_no_mass_means_uniform_marginals_without_gradient_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    u, v = random_maps(25)
    v = torch.stack([v[0], -u[1].abs()])  # the second sample: all products negative
    u = torch.stack([u[0], u[1].abs()])
    leaves = [t.requires_grad_() for t in (u, v)]
    with caplog.at_level(logging.WARNING):
        value = similarity(*leaves)
    assert "1 of 2 samples had a map without cross-reference mass" in caplog.text
    cosine = torch.cosine_similarity(u[1][:, None], v[1][None], dim=2)
    uniform = torch.full((1, 6), 1 / 6, dtype=DOUBLE)
    expected = 1 - exact(1 - cosine[None], uniform, uniform)
    torch.testing.assert_close(value[1:], expected)
    for found, wanted in zip(gradients(value[1], *leaves), gradients(expected, u, v), strict=True):
        torch.testing.assert_close(found, wanted)


def test_mass_that_is_only_rounding_is_no_mass(caplog: pytest.LogCaptureFixture) -> None:
    u, v = random_maps(26, batch=1)
    v = v - v.mean(1, keepdim=True)  # the mean is zero, but for rounding
    similarity(u.float(), v.float())
    assert "1 of 1 samples" in caplog.text


def test_a_log_stays_empty_where_there_is_mass(caplog: pytest.LogCaptureFixture) -> None:
    similarity(*random_maps(27))
    assert caplog.text == ""


@pytest.mark.parametrize("silent", ["one position", "one map", "both maps"])
def test_zero_features_give_finite_gradients(silent: str) -> None:
    u, v = (t.abs() for t in random_maps(28))
    u[:, 0] = 0
    if silent != "one position":
        u[:] = 0
    if silent == "both maps":
        v[:] = 0
    u, v = u.requires_grad_(), v.requires_grad_()
    value = similarity(u, v)
    for gradient in gradients(value, u, v):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3
    if silent != "one position":
        torch.testing.assert_close(value, torch.zeros(2, dtype=DOUBLE))


def test_the_floor_is_deepemd_s_option() -> None:
    u, v = random_maps(29)
    assert not torch.allclose(similarity(u, v, mass_floor=0.5), similarity(u, v))
    # A floor that drowns the products leaves uniform marginals.
    torch.testing.assert_close(
        similarity(u, v, mass_floor=1e9),
        similarity(u, v, transport=lambda c, a, b: exact(c, *[torch.full_like(a, 1 / 6)] * 2)),
        rtol=0,
        atol=1e-8,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_maps(dtype: torch.dtype) -> None:
    u, v = random_maps(30)
    leaves = [t.to(dtype).requires_grad_() for t in (u, v)]
    value = similarity(*leaves)
    assert value.dtype == dtype
    assert all(g.dtype == dtype for g in gradients(value, *leaves))
    torch.testing.assert_close(
        value.double(), similarity(u, v), rtol=0, atol=10 * torch.finfo(dtype).eps
    )


def test_autocast_does_not_coarsen_the_cost() -> None:
    u, v = (t.float() for t in random_maps(31))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = similarity(u, v)
    assert torch.equal(inside, similarity(u, v))


def test_entropic_similarity_approaches_the_exact_one_from_below() -> None:
    u, v = random_maps(32)
    values = [similarity(u, v, transport=partial(entropic, eps=e)) for e in (0.3, 0.1, 0.03)]
    gaps = [(similarity(u, v) - value).min().item() for value in values]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.03 * np.log(6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda u, v: (u, v[:, :5]), r"same shape .*got \(2, 6, 5\) and \(2, 5, 5\)"),
        (lambda u, v: (u[0], v[0]), r"\(samples, positions, channels\) .got \(6, 5\)"),
        (lambda u, v: (u[:, :, :0], v[:, :, :0]), r"same shape .*got \(2, 6, 0\)"),
        (lambda u, v: (u, v.int()), "floating point .*got torch.float64 and torch.int32"),
        (lambda u, v: (u, v.to("meta")), "on one device .got cpu and meta"),
        (lambda u, v: (u * torch.nan, v), "'u_bnc' must be finite .* problem 0"),
        (lambda u, v: (u, v / 0), "'v_bnc' must be finite"),
        (lambda u, v: (u.float() * 1e25, v.float()), "'u_bnc' must be finite"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(change, sentence: str) -> None:
    with pytest.raises(TransportError, match=sentence):
        similarity(*change(*random_maps(33)))


@pytest.mark.parametrize("floor", [-1e-3, float("nan"), float("inf")])
def test_an_impossible_floor_is_refused(floor: float) -> None:
    with pytest.raises(ConfigError, match="'mass_floor' must be a finite number, 0 or more"):
        similarity(*random_maps(34), mass_floor=floor)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([1e-18, 1e-3, 1.0, 1e15]))
def test_any_signed_maps_give_a_similarity_within_its_bounds(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    u, v = scale * torch.randn(2, 3, 7, 4, generator=generator)
    value = similarity(u, v)
    assert ((value >= -1 - 1e-6) & (value <= 1 + 1e-6)).all()
