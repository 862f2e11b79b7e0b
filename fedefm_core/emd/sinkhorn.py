# SPDX-License-Identifier: Apache-2.0
"""The entropic solver: geomloss's Sinkhorn loop, finished, checked and differentiated here.

    V_ε(c, a, b) = min_x  Σ c x + ε KL(x | a ⊗ b)             over plans x with marginals a and b
                 = max_fg Σ a f + Σ b g − ε Σ a b (exp((f + g − c) / ε) − 1)

    ∂V_ε/∂c = x̃ = a b exp((f + g − c) / ε)        ∂V_ε/∂a = f        ∂V_ε/∂b = g

`geomloss.ot.solve_batch` lowers ε step by step and stops at the first step that has the ε asked
for, so its plan lags behind and misses the marginals, the more so the smaller ε is; more steps
help no faster than 1 / steps. Its potentials are a good start, from which plain Sinkhorn updates
go on until the marginals are met. Nor is its autograd used: in 0.3.1 it gives the cost twice its
gradient. A test of ours fails once that is mended.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from geomloss import ot  # type: ignore[import-untyped]
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedefm_core.emd.problem import center_duals, check_problems
from fedefm_core.errors import ConfigError, TransportError

ANNEALING_STEPS = 32
UPDATES_PER_CHECK = 10


class _Stop(NamedTuple):
    tolerance: float
    max_updates: int


def entropic(
    cost_bnm: Tensor,
    a_bn: Tensor,
    b_bm: Tensor,
    *,
    eps: float = 0.1,
    tolerance: float = 1e-3,
    max_updates: int = 10_000,
) -> Tensor:
    """Least Σ c x + ε KL(x | a ⊗ b) of moving the mass a to b, problem by problem.

    Takes and refuses what `exact` does, returns (B,) in the dtype and on the device of the cost,
    and computes there: in float64 for float64, else in float32. Differentiable once, in all three.
    V_ε lies above the exact cost by no more than ε times the entropy of a marginal, so ε ln N.
    Masses of another sum than 1 are normalised first: V_ε(c, m a, m b) = m V_ε(c, a, b).

    eps: ε, in units of the cost. The default suits a cosine cost; much less makes Sinkhorn slow.
    tolerance: greatest Σ |marginal of the plan − marginal asked for|, for masses of sum 1.
    max_updates: Sinkhorn updates of both potentials before it gives up.

    Raises TransportError as `exact` does, and when the tolerance is not met; ConfigError for an
    eps or tolerance that is not positive and finite, and for max_updates below 1.
    """
    _check_settings(eps, tolerance, max_updates)
    check_problems(cost_bnm, a_bn, b_bm)
    stop = _Stop(tolerance, max_updates)
    value: Tensor = _Entropic.apply(  # type: ignore[no-untyped-call]
        cost_bnm, a_bn, b_bm, eps, stop
    )
    return value


class _Entropic(torch.autograd.Function):
    """Solve in forward, hand out plan and potentials in backward."""

    @staticmethod
    def forward(
        ctx: Any, cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor, eps: float, stop: _Stop
    ) -> Tensor:
        dtype = torch.promote_types(cost_bnm.dtype, torch.float32)
        cost, a, b = (tensor.detach().to(dtype) for tensor in (cost_bnm, a_bn, b_bm))
        mass = a.sum(1, keepdim=True)
        a, b = a / mass, b / b.sum(1, keepdim=True)
        plan, f, g = _solve(cost, a, b, eps, stop)
        f, g = center_duals(f, g, a, b)
        value = mass[:, 0] * ((a * f).sum(1) + (b * g).sum(1))
        ctx.save_for_backward((plan * mass[:, :, None]).to(cost_bnm), f.to(a_bn), g.to(b_bm))
        return value.to(cost_bnm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_b: Tensor) -> tuple[Tensor | None, ...]:
        plan, f, g = ctx.saved_tensors
        grad_f, grad_g = (grad_b[:, None].to(dual) * dual for dual in (f, g))
        return grad_b[:, None, None] * plan, grad_f, grad_g, None, None


def _solve(
    cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor, eps: float, stop: _Stop
) -> tuple[Tensor, Tensor, Tensor]:
    """Plan and potentials of all problems, for masses of sum 1."""
    if len(cost_bnm) == 0:
        return cost_bnm, a_bn, b_bm
    found = ot.solve_batch(cost_bnm, a=a_bn, b=b_bm, reg=eps, max_iter=ANNEALING_STEPS)
    f, g = found.potential_a, found.potential_b
    kernel, log_a, log_b = -cost_bnm / eps, a_bn.log()[:, :, None], b_bm.log()[:, None, :]
    for update in range(1, stop.max_updates + 1):
        f = -eps * torch.logsumexp(kernel + (log_b + g[:, None, :] / eps), 2)
        g = -eps * torch.logsumexp(kernel + (log_a + f[:, :, None] / eps), 1)
        if update % UPDATES_PER_CHECK and update < stop.max_updates:
            continue
        # Summed before exp: a point without mass has log a = −∞ and may have a huge potential.
        plan = (kernel + (log_a + f[:, :, None] / eps) + (log_b + g[:, None, :] / eps)).exp()
        residual = _residual(plan, a_bn, b_bm)
        if residual <= stop.tolerance:
            return plan, f, g
    raise TransportError(
        f"Sinkhorn must meet the marginals to {stop.tolerance:g} (got {residual:.2g} after "
        f"{stop.max_updates} updates at eps = {eps:g}): raise 'eps', 'tolerance' or 'max_updates' "
        "or use the exact solver."
    )


def _residual(plan_bnm: Tensor, a_bn: Tensor, b_bm: Tensor) -> float:
    """Greatest L1 distance of a plan's marginal from the one asked for; infinite for NaN."""
    rows = (plan_bnm.sum(2) - a_bn).abs().sum(1)
    columns = (plan_bnm.sum(1) - b_bm).abs().sum(1)
    return float(torch.maximum(rows, columns).nan_to_num(nan=torch.inf).max())


def _check_settings(eps: float, tolerance: float, max_updates: int) -> None:
    for name, number in (("eps", eps), ("tolerance", tolerance)):
        if not 0 < number < float("inf"):
            raise ConfigError(f"'{name}' must be a finite number above 0 (got {number}).")
    if max_updates < 1:
        raise ConfigError(f"'max_updates' must be 1 or more (got {max_updates}).")
