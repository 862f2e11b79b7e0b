# SPDX-License-Identifier: Apache-2.0
"""Earth mover's distance between the dense maps of two models, and its gradient.

Legend: B problems in a batch, N and M points of the two sides, C channels; u_p and v_q are the
feature vectors at the positions p and q of the maps U and V, as (N, C) and (M, C).

    c_pq     = 1 − cos(u_p, v_q)
    x̃        = argmin_x Σ c_pq x_pq   with   x ≥ 0,  Σ_q x_pq = a_p,  Σ_p x_pq = b_q
    EMD(U, V) = Σ (1 − c_pq) x̃_pq                                                    (3)

Equation (3) of the FedEFM paper is thus a *similarity*: with Σ a = Σ b = 1 it is 1 minus the cost
of transport, and 1 where both models see the same thing. The marginals are DeepEMD's cross-
reference: a_p ∝ max(0, u_p · mean_q v_q), b_q ∝ max(0, v_q · mean_p u_p).

Which solver when:

- `exact` (default of `similarity`): the linear program itself, by network simplex on the CPU.
  Exact to rounding, nothing to tune, sparse plan. Right for maps up to 16 × 16 or so.
- `entropic`: Sinkhorn on whatever device the tensors are. For large maps and for a GPU, when a
  cost that is too high by up to `eps` ln N does no harm. A small `eps` needs many updates; a
  solution that has not converged is refused, never returned.

Neither unrolls its iterations: by the envelope theorem the gradient of the optimal cost is the
plan for the cost and the dual potentials for the marginals, and both come with the solution.

References:
    Do et al., FedEFM: Federated Endovascular Foundation Model with Unseen Data, 2025.
    Zhang et al., DeepEMD: Few-Shot Image Classification with Differentiable Earth Mover's
        Distance and Structured Classifiers, CVPR 2020.
    Bonneel et al., Displacement Interpolation Using Lagrangian Mass Transport, SIGGRAPH Asia 2011.
    Feydy, Geometric Data Analysis, Beyond Convolutions, PhD thesis, 2020, section 3.3.
    Danskin, The Theory of Max-Min and its Application to Weapons Allocation Problems, 1967.

Example:
    >>> import torch
    >>> from fedefm_core.emd import similarity
    >>> u_bnc = torch.eye(3)[None]                        # one sample, three positions
    >>> similarity(u_bnc, u_bnc[:, [2, 0, 1]]).item()     # the same things, elsewhere
    1.0
"""

from fedefm_core.emd.cross_reference import similarity
from fedefm_core.emd.network_simplex import exact
from fedefm_core.emd.sinkhorn import entropic
from fedefm_core.errors import TransportError

__all__ = ["TransportError", "entropic", "exact", "similarity"]
