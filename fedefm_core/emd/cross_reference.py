# SPDX-License-Identifier: Apache-2.0
"""How alike two dense maps are: cosine cost, cross-reference marginals, transport between them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from fedefm_core.emd.network_simplex import exact
from fedefm_core.emd.problem import check_finite
from fedefm_core.errors import ConfigError, TransportError

Transport = Callable[[Tensor, Tensor, Tensor], Tensor]

_log = logging.getLogger(__name__)

# Mass below this multiple of the machine epsilon, relative to the lengths of the features, is
# what rounding leaves of none.
ROUNDING = 8


def similarity(
    u_bnc: Tensor, v_bnc: Tensor, *, transport: Transport = exact, mass_floor: float = 0.0
) -> Tensor:
    """EMD(U, V) = Σ (1 − c_pq) x̃_pq of the FedEFM paper (3), sample by sample: 1 means alike.

    u_bnc, v_bnc: dense maps (B, N, C) of the same B samples through two models, N = H·W positions,
    on one device, of any floating point dtype; half precision is computed in float32. Returns (B,)
    in the dtype of u_bnc, between -1 and 1. Does not change when U or V is scaled, nor when the
    positions of either are permuted.

    The gradient flows through the cost and through both marginals; to give the teacher none,
    detach it. A marginal without any mass (signed features that all point away from the other
    map's mean) is uniform instead and has no gradient; the log counts the samples that this
    befell. A position whose features are all zero is at cosine 0 from everything and has no
    gradient through the cost.

    transport: `exact`, or `functools.partial(entropic, eps=...)`, whose value includes entropy.
    mass_floor: added to each weight before normalising, as DeepEMD's code does (1e-3), although
    then the scale of the features counts. 0 is DeepEMD's equation.

    Raises TransportError for shapes, dtypes or devices that do not fit, NaN, infinity, and
    features so large that their length overflows; ConfigError for a mass_floor that is negative
    or not finite.

    Example: equal maps.
        >>> u_bnc = torch.rand(2, 49, 64)
        >>> similarity(u_bnc, u_bnc)                      # tensor([1., 1.]) to rounding
    """
    _check_maps(u_bnc, v_bnc)
    if not 0 <= mass_floor < float("inf"):
        raise ConfigError(f"'mass_floor' must be a finite number, 0 or more (got {mass_floor}).")
    with torch.autocast(u_bnc.device.type, enabled=False):
        u, u_size_b = _scaled("u_bnc", u_bnc)
        v, v_size_b = _scaled("v_bnc", v_bnc)
        u_length_bn, v_length_bn = (torch.linalg.vector_norm(x, dim=2) for x in (u, v))
        dot_bnm = u @ v.mT  # all that follows comes from it, so that maps are read but once
        noise_b = _rounding(u_length_bn, v_length_bn)
        floor_b = mass_floor / u_size_b / v_size_b
        a, a_empty = _cross_reference(dot_bnm.mean(2), floor_b, noise_b)
        b, b_empty = _cross_reference(dot_bnm.mean(1), floor_b, noise_b)
        _count(a_empty | b_empty)
        cost_bnm = 1 - _cosine(dot_bnm, u_length_bn, v_length_bn)
        alike: Tensor = (1 - transport(cost_bnm, a, b)).to(u_bnc.dtype)
        return alike


def _check_maps(u_bnc: Tensor, v_bnc: Tensor) -> None:
    if u_bnc.shape != v_bnc.shape or u_bnc.ndim != 3 or 0 in u_bnc.shape[1:]:
        raise TransportError(
            "'u_bnc' and 'v_bnc' must be of the same shape (samples, positions, channels) "
            f"(got {tuple(u_bnc.shape)} and {tuple(v_bnc.shape)})."
        )
    if not (u_bnc.is_floating_point() and v_bnc.is_floating_point()):
        raise TransportError(
            "'u_bnc' and 'v_bnc' must hold floating point numbers "
            f"(got {u_bnc.dtype} and {v_bnc.dtype})."
        )
    if u_bnc.device != v_bnc.device:
        raise TransportError(
            f"'u_bnc' and 'v_bnc' must be on one device (got {u_bnc.device} and {v_bnc.device})."
        )


def _scaled(name: str, map_bnc: Tensor) -> tuple[Tensor, Tensor]:
    """The map in units of its longest feature, and that length (B,): products neither overflow nor
    vanish, whatever the scale. A map of zeros stays as it is."""
    map_bnc = map_bnc.to(torch.promote_types(map_bnc.dtype, torch.float32))
    length_bn = torch.linalg.vector_norm(map_bnc.detach(), dim=2)
    check_finite(name, length_bn)
    size_b = length_bn.amax(1)
    size_b = torch.where(size_b == 0, 1.0, size_b)
    return map_bnc / size_b[:, None, None], size_b


def _cosine(dot_bnm: Tensor, u_length_bn: Tensor, v_length_bn: Tensor) -> Tensor:
    """Products of features over their lengths; 0, and cut off from the gradient, for those of
    length 0."""
    product_bnm = u_length_bn[:, :, None] * v_length_bn[:, None, :]
    zero_bnm = product_bnm == 0
    return torch.where(zero_bnm, 0.0, dot_bnm) / torch.where(zero_bnm, 1.0, product_bnm)


def _rounding(u_length_bn: Tensor, v_length_bn: Tensor) -> Tensor:
    """Total weight (B,) of either side that rounding alone can leave."""
    epsilon = torch.finfo(u_length_bn.dtype).eps
    scale_b = u_length_bn.mean(1) * v_length_bn.mean(1) * u_length_bn.shape[1]
    return (ROUNDING * epsilon * scale_b).detach()


def _cross_reference(alike_bn: Tensor, floor_b: Tensor, noise_b: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (B, N) of sum 1 a sample, from each position's product with the other map's mean;
    and (B,) whether there was no mass."""
    weight_bn = torch.relu(alike_bn) + floor_b[:, None]
    empty_b = weight_bn.sum(1) <= noise_b
    weight_bn = torch.where(empty_b[:, None], 1.0, weight_bn)
    return weight_bn / weight_bn.sum(1, keepdim=True), empty_b


def _count(empty_b: Tensor) -> None:
    if empty_b.any():
        _log.warning(
            "%d of %d samples had a map without cross-reference mass: uniform marginals there",
            int(empty_b.sum()),
            len(empty_b),
        )
