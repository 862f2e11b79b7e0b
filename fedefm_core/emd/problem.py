# SPDX-License-Identifier: Apache-2.0
"""What makes a batch of transport problems solvable: the checks that both solvers share."""

from __future__ import annotations

import torch
from torch import Tensor

from fedefm_core.errors import TransportError


def check_problems(cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor) -> None:
    """Raise TransportError, with a sentence, unless each problem of the batch has a solution.

    Single points may be without mass; a side may not. Both sides must hold the same mass, to the
    precision of the coarsest dtype among the three.
    """
    _check_shapes(cost_bnm, a_bn, b_bm)
    for name, values in (("cost", cost_bnm), ("a", a_bn), ("b", b_bm)):
        check_finite(name, values.flatten(1))
    for name, mass in (("a", a_bn), ("b", b_bm)):
        _check_mass(name, mass)
    _check_balance(a_bn, b_bm, tolerance=_tolerance(cost_bnm, a_bn, b_bm))


def check_finite(name: str, values_bk: Tensor) -> None:
    """Raise TransportError when a row of values holds NaN or infinity."""
    bad = ~torch.isfinite(values_bk).all(dim=1)
    if bad.any():
        raise TransportError(f"'{name}' must be finite (got NaN or infinity {_where(bad)}).")


def center_duals(u_bn: Tensor, v_bm: Tensor, a_bn: Tensor, b_bm: Tensor) -> tuple[Tensor, Tensor]:
    """Shift dual potentials by opposite constants so that Σ a u = Σ b v, for Σ a = Σ b = 1.

    Only u_p + v_q is determined; this choice shares the cost evenly between the two sides.
    """
    shift = ((b_bm * v_bm).sum(1, keepdim=True) - (a_bn * u_bn).sum(1, keepdim=True)) / 2
    return u_bn + shift, v_bm - shift


def _check_shapes(cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor) -> None:
    for name, tensor in (("cost", cost_bnm), ("a", a_bn), ("b", b_bm)):
        if not tensor.is_floating_point():
            raise TransportError(
                f"'{name}' must hold floating point numbers (got {tensor.dtype})."
            )
        if tensor.device != cost_bnm.device:
            raise TransportError(
                f"'{name}' must be on the device of the cost, {cost_bnm.device} "
                f"(got {tensor.device})."
            )
    if cost_bnm.ndim != 3 or 0 in cost_bnm.shape[1:]:
        raise TransportError(
            "'cost' must be of shape (problems, points, points) with at least one point a side "
            f"(got {tuple(cost_bnm.shape)})."
        )
    batch, rows, columns = cost_bnm.shape
    for name, mass, points in (("a", a_bn, rows), ("b", b_bm, columns)):
        if mass.shape != (batch, points):
            raise TransportError(
                f"'{name}' must be of shape {(batch, points)} to fit a cost of shape "
                f"{tuple(cost_bnm.shape)} (got {tuple(mass.shape)})."
            )


def _check_mass(name: str, mass_bk: Tensor) -> None:
    least = mass_bk.amin(1)
    negative = least < 0
    if negative.any():
        raise TransportError(
            f"'{name}' must not hold negative mass (got {float(least[negative][0]):g} "
            f"{_where(negative)})."
        )
    empty = mass_bk.amax(1) == 0
    if empty.any():
        raise TransportError(
            f"'{name}' must hold some mass (got zero at every point {_where(empty)})."
        )


def _check_balance(a_bn: Tensor, b_bm: Tensor, tolerance: float) -> None:
    mass_a, mass_b = a_bn.double().sum(1), b_bm.double().sum(1)
    apart = (mass_a - mass_b).abs() > tolerance * torch.maximum(mass_a, mass_b)
    if apart.any():
        raise TransportError(
            f"'a' and 'b' must hold the same mass (got {float(mass_a[apart][0]):g} and "
            f"{float(mass_b[apart][0]):g} {_where(apart)})."
        )


def _tolerance(*tensors: Tensor) -> float:
    """Relative difference of two sums that rounding alone can explain."""
    return max(1e-5, 8 * max(torch.finfo(tensor.dtype).eps for tensor in tensors))


def _where(bad: Tensor) -> str:
    return f"in problem {int(bad.nonzero()[0])} of 0 to {len(bad) - 1}"
