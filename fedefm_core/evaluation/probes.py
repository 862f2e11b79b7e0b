# SPDX-License-Identifier: Apache-2.0
"""Probes: what frozen features know, read out by simple classifiers that are fitted on them.

Legend: N images, M images to be told apart, K kinds of image, D width of the features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fedefm_core.networks.foundation import FoundationNetwork, FoundationOutput
from fedefm_core.networks.segmentation import normalise

Images = npt.NDArray[np.uint8]
_NEWTON_STEPS = 200  # at most, of the linear probe's optimiser


def outputs_of(
    network: FoundationNetwork, images: Images, device: torch.device, batch_size: int = 128
) -> Iterator[FoundationOutput]:
    """What the frozen network says of (N, H, W) uint8 images, a batch at a time, on the CPU."""
    network.to(device).eval()
    for at in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[at : at + batch_size]))
        with torch.inference_mode():
            output = network(normalise(batch[:, None].to(device)))
        yield FoundationOutput(*(part.float().cpu() for part in output))


def balanced_accuracy(predicted_m: Tensor, labels_m: Tensor) -> float:
    """Mean over kinds of the share of their images that were told; kinds without images left
    out."""
    return float(np.mean(list(accuracy_by_kind(predicted_m, labels_m).values())))


def accuracy_by_kind(predicted_m: Tensor, labels_m: Tensor) -> dict[int, float]:
    """Of each kind that is there, the share of its images that were told."""
    right_m = (predicted_m == labels_m).double()
    return {int(k): float(right_m[labels_m == k].mean()) for k in labels_m.unique()}


def linear_probe(
    train_nd: Tensor, labels_n: Tensor, test_md: Tensor, kinds: int, decay: float = 1e-3
) -> Tensor:
    """(M,) kinds by multinomial logistic regression on features standardised on the training part.

    Kinds count alike whatever their numbers; decay is that of the weights, ½ decay ‖W‖². The
    problem is convex, and L-BFGS runs until it is solved.
    """
    x_nd, z_md = _standardised(train_nd, test_md)
    weight = torch.zeros(kinds, x_nd.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(kinds, dtype=torch.float64, requires_grad=True)
    counts_k = torch.bincount(labels_n, minlength=kinds).double()
    each_n = (1 / counts_k.clamp(min=1))[labels_n] / (counts_k > 0).sum()
    optimiser = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_NEWTON_STEPS,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def loss_of_all() -> Tensor:
        optimiser.zero_grad()
        losses_n = functional.cross_entropy(x_nd @ weight.T + bias, labels_n, reduction="none")
        loss = (each_n * losses_n).sum() + 0.5 * decay * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(loss_of_all)
    return (z_md @ weight.T + bias).detach().argmax(1)


def knn_probe(
    train_nd: Tensor, labels_n: Tensor, test_md: Tensor, kinds: int, neighbours: int = 10
) -> Tensor:
    """(M,) kinds by a vote of the nearest training images, by cosine of standardised features.

    Of kinds with equal votes the one whose voters are nearer.
    """
    x_nd, z_md = _standardised(train_nd, test_md)
    cosine_mn = functional.normalize(z_md, dim=1) @ functional.normalize(x_nd, dim=1).T
    nearest = cosine_mn.topk(min(neighbours, len(x_nd)), dim=1)
    votes_mjk = functional.one_hot(labels_n[nearest.indices], kinds).double()
    nearness_mj = 1 + 1e-3 * nearest.values  # far less than a vote, all voters together
    return (votes_mjk * nearness_mj[:, :, None]).sum(1).argmax(1)


def _standardised(train_nd: Tensor, test_md: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, with mean 0 and deviation 1 on the training part; constants become 0."""
    train, test = train_nd.double(), test_md.double()
    mean, deviation = train.mean(0), train.std(0, correction=0)
    scale = torch.where(deviation > 1e-9 * (1 + mean.abs()), 1 / deviation, 0.0)
    return (train - mean) * scale, (test - mean) * scale
