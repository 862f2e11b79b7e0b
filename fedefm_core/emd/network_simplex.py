# SPDX-License-Identifier: Apache-2.0
"""The exact solver: POT's network simplex, with the gradient that the envelope theorem gives.

Let V(c, a, b) = min Σ c x over the plans x with marginals a and b, and (u, v) the maximisers of
the dual, max Σ a u + Σ b v with u_p + v_q ≤ c_pq. V is the optimum of a problem whose data are
c, a and b, so its derivative is that of the Lagrangian at the optimum:

    ∂V/∂c_pq = x̃_pq        ∂V/∂a_p = u_p        ∂V/∂b_q = v_q

A layer that differentiates the KKT system (DeepEMD, qpth) finds the same numbers by solving a
dense linear system; here they are by-products of the solution. Where optimal plan or duals are not
unique, V has a kink, and this is one of its subgradients.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedefm_core.emd.problem import center_duals, check_problems
from fedefm_core.errors import ConfigError, TransportError
from fedefm_core.provenance import usable_cpus

Array = NDArray[np.float64]

# A pivot each; a problem of 1024 × 1024 points takes some 100,000.
MAX_PIVOTS = 100_000_000
# Smaller problems take less time than handing them to a thread does.
THREADS_FROM_COSTS = 64 * 64


class _Solution(NamedTuple):
    """Plan and duals of one problem whose marginals sum to 1."""

    plan_nm: Array
    u_n: Array
    v_m: Array


def exact(cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor, *, threads: int = 0) -> Tensor:
    """Least cost Σ c_pq x_pq of moving the mass a to b, problem by problem.

    cost_bnm (B, N, M) may have any finite values, a_bn (B, N) and b_bm (B, M) any masses ≥ 0 whose
    sums agree, in any floating point dtypes, on any one device: the solver works in float64 on
    the CPU. Returns (B,) in the dtype of the cost, and on its device.

    Differentiable once, in all three. The duals are centred so that Σ a u = Σ b v; this matters
    only to a marginal whose sum is free to change, for which the cost is not defined. A point
    without mass gets the derivative that it has as its mass grows from zero.

    threads: how many problems are solved at a time, each on a thread; 0: as many as there are
    CPUs. The result does not depend on it.

    Raises TransportError for NaN, infinity, shapes or devices that do not fit, negative mass, a
    side without any mass, and sides whose masses differ; ConfigError for negative threads.
    """
    if threads < 0:
        raise ConfigError(f"'threads' must be 0 (one a CPU) or more (got {threads}).")
    check_problems(cost_bnm, a_bn, b_bm)
    value: Tensor = _Exact.apply(  # type: ignore[no-untyped-call]
        cost_bnm, a_bn, b_bm, threads or usable_cpus()
    )
    return value


class _Exact(torch.autograd.Function):
    """Solve in forward, hand out plan and duals in backward."""

    @staticmethod
    def forward(ctx: Any, cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor, threads: int) -> Tensor:
        cost, a, b = (t.detach().to("cpu", torch.float64) for t in (cost_bnm, a_bn, b_bm))
        mass = a.sum(1, keepdim=True)
        # POT's tolerances on the masses are absolute, so that it only ever sees masses of sum 1.
        a, b = a / mass, b / b.sum(1, keepdim=True)
        plan, u, v = _solve_batch(cost, a, b, threads)
        u, v = center_duals(u, v, a, b)
        value = mass[:, 0] * (cost * plan).sum((1, 2))
        ctx.save_for_backward((plan * mass[:, :, None]).to(cost_bnm), u.to(a_bn), v.to(b_bm))
        return value.to(cost_bnm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_b: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        plan, u, v = ctx.saved_tensors
        return grad_b[:, None, None] * plan, _scaled(grad_b, u), _scaled(grad_b, v), None


def _scaled(grad_b: Tensor, dual_bk: Tensor) -> Tensor:
    return grad_b[:, None].to(dual_bk) * dual_bk


def _solve_batch(
    cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor, threads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve all problems, several at a time: POT releases the GIL while it works."""
    if len(cost_bnm) == 0:
        return cost_bnm, a_bn, b_bm
    problems = list(zip(cost_bnm.numpy(), a_bn.numpy(), b_bm.numpy(), strict=True))
    workers = min(threads, len(problems)) if cost_bnm[0].numel() >= THREADS_FROM_COSTS else 1
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            solutions = list(pool.map(_solve, *zip(*problems, strict=True)))
    else:
        solutions = [_solve(*problem) for problem in problems]
    plan, u, v = torch.empty_like(cost_bnm), torch.empty_like(a_bn), torch.empty_like(b_bm)
    for index, solution in enumerate(solutions):
        for target, array in zip((plan, u, v), solution, strict=True):
            target[index] = torch.from_numpy(array)
    return plan, u, v


def _solve(cost_nm: Array, a_n: Array, b_m: Array) -> _Solution:
    rows, columns = a_n > 0, b_m > 0
    if rows.all() and columns.all():
        return _solve_with_mass(cost_nm, a_n, b_m)
    return _solve_with_gaps(cost_nm, a_n, b_m, rows, columns)


def _solve_with_gaps(
    cost_nm: Array, a_n: Array, b_m: Array, rows: NDArray[np.bool_], columns: NDArray[np.bool_]
) -> _Solution:
    """Leave the points without mass out, then give them their duals.

    The dual of such a point is the greatest that keeps u_p + v_q ≤ c_pq against all points with
    mass: the price of its first grain.
    """
    some = np.ix_(rows, columns)
    solved = _solve_with_mass(np.ascontiguousarray(cost_nm[some]), a_n[rows], b_m[columns])
    plan = np.zeros_like(cost_nm)
    plan[some] = solved.plan_nm
    u = (cost_nm[:, columns] - solved.v_m).min(1)
    v = (cost_nm[rows] - solved.u_n[:, None]).min(0)
    u[rows], v[columns] = solved.u_n, solved.v_m
    return _Solution(plan, u, v)


def _solve_with_mass(cost_nm: Array, a_n: Array, b_m: Array) -> _Solution:
    # Here, not above: POT loads all of scikit-learn, and who solves nothing need not wait for it.
    import ot  # type: ignore[import-untyped]

    # POT finds problems infeasible whose costs are all negative. The plan is blind to a constant.
    least = cost_nm.min()
    plan, log = ot.emd(
        a_n,
        b_m,
        cost_nm - least,
        numItermax=MAX_PIVOTS,
        log=True,
        center_dual=False,
        check_marginals=False,
    )
    if log["warning"] is not None:
        raise TransportError(f"The network simplex found no optimal plan: {log['warning']}")
    return _Solution(plan, log["u"] + least, log["v"])
