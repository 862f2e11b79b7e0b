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
        u, v = _at_least_float32(u_bnc), _at_least_float32(v_bnc)
        u_length, v_length = _lengths("u_bnc", u), _lengths("v_bnc", v)
        cost_bnm = 1 - _directions(u, u_length) @ _directions(v, v_length).mT
        noise_b = _rounding(u_length, v_length)
        a, a_empty = _cross_reference(u, v, mass_floor, noise_b)
        b, b_empty = _cross_reference(v, u, mass_floor, noise_b)
        _count(a_empty | b_empty)
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


def _lengths(name: str, map_bnc: Tensor) -> Tensor:
    length_bn1: Tensor = torch.linalg.vector_norm(map_bnc, dim=2, keepdim=True)
    check_finite(name, length_bn1.flatten(1))
    return length_bn1


def _directions(map_bnc: Tensor, length_bn1: Tensor) -> Tensor:
    """Features scaled to length 1; those of length 0 stay, cut off from the gradient."""
    zero = length_bn1 == 0
    return torch.where(zero, 0.0, map_bnc) / torch.where(zero, 1.0, length_bn1)


def _rounding(u_length_bn1: Tensor, v_length_bn1: Tensor) -> Tensor:
    """Total weight (B,) of either side that rounding alone can leave."""
    epsilon = torch.finfo(u_length_bn1.dtype).eps
    scale_b1 = u_length_bn1.mean(1) * v_length_bn1.mean(1) * u_length_bn1.shape[1]
    return (ROUNDING * epsilon * scale_b1)[:, 0].detach()


def _cross_reference(
    own_bnc: Tensor, other_bnc: Tensor, mass_floor: float, noise_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights (B, N) of own's positions, of sum 1 a sample; and (B,) whether there was no mass."""
    alike = (own_bnc @ other_bnc.mean(1).unsqueeze(2)).squeeze(2)
    weight = torch.relu(alike) + mass_floor
    empty = weight.sum(1) <= noise_b
    weight = torch.where(empty[:, None], 1.0, weight)
    return weight / weight.sum(1, keepdim=True), empty


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _count(empty_b: Tensor) -> None:
    if empty_b.any():
        _log.warning(
            "%d of %d samples had a map without cross-reference mass: uniform marginals there",
            int(empty_b.sum()),
            len(empty_b),
        )
