# SPDX-License-Identifier: Apache-2.0
"""Forward and backward of the EMD similarity, in turns with the other ways to differentiate it.

    python benchmarks/emd.py [--json FILE] [--plot FILE]

Each method gets the same dense maps and computes cost, marginals, transport and the gradient down
the features; only the transport differs. They take turns, so that a busy machine meets all alike.
The KKT layer is timed where qpth is installed, and only at sizes that it can take.

Times are a problem's share of a batch, in milliseconds. Ratios are of processor time, summed over
threads and with torch on one, which a busy machine distorts less than it does the wall clock.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import ot
import torch
import typer
from geomloss import SamplesLoss
from torch import Tensor
from torch.nn import functional

from fedefm_core.cli.report import write_json
from fedefm_core.emd import entropic, similarity
from fedefm_core.provenance import provenance

SEED = 4
OURS = "exact"
EPS = 0.1
SIZES = [16, 36, 64, 144, 256]
# qpth factorises dense systems of HW² unknowns.
KKT_LIMIT = 36
KKT_BATCHES = 1
Method = Callable[[Tensor, Tensor], Tensor]
Times = list[tuple[float, float]]
Summary = dict[str, dict[str, float]]


def dense_maps(positions: int, channels: int, batch: int, round_: int) -> tuple[Tensor, Tensor]:
    """Maps of a teacher and of a student that resembles it: similarity about 0.86."""
    generator = torch.Generator().manual_seed(SEED + round_)
    u = torch.randn(batch, positions, channels, generator=generator) + 0.5
    v = u + 0.5 * torch.randn(batch, positions, channels, generator=generator)
    return u.requires_grad_(), v.requires_grad_()


def pot_torch(cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor) -> Tensor:
    """POT's own autograd, a problem at a time, as its documentation has it."""
    problems = zip(a_bn, b_bm, cost_bnm, strict=True)
    return torch.stack([ot.emd2(a, b, cost) for a, b, cost in problems])


def kkt_layer(cost_bnm: Tensor, a_bn: Tensor, b_bm: Tensor) -> Tensor:
    """The optimality conditions differentiated by qpth, as DeepEMD does it.

    A quadratic term makes the program strictly convex; the last constraint, implied by the
    others, is left out.
    """
    from qpth.qp import QPFunction  # not a requirement of this package

    batch, rows, columns = cost_bnm.shape
    size = rows * columns
    cost, a, b = cost_bnm.double(), a_bn.double(), b_bm.double()
    sums = np.vstack(
        [np.kron(np.eye(rows), np.ones(columns)), np.kron(np.ones(rows), np.eye(columns))]
    )
    constraints = torch.from_numpy(sums[:-1]).expand(batch, -1, -1)
    identity = torch.eye(size, dtype=torch.float64).expand(batch, -1, -1)
    plan = QPFunction(verbose=-1)(
        1e-4 * identity,
        cost.reshape(batch, size),
        -identity,
        torch.zeros(batch, size, dtype=torch.float64),
        constraints,
        torch.cat([a, b], 1)[:, :-1],
    )
    return (cost.reshape(batch, size) * plan).sum(1).to(cost_bnm)


def samples_loss(u_bnc: Tensor, v_bnc: Tensor) -> Tensor:
    """geomloss on the unit vectors, where ½ |x − y|² is 1 − cos: the same cost, ε = blur²."""
    loss = SamplesLoss("sinkhorn", p=2, blur=EPS**0.5, debias=False, backend="tensorized")
    masses = [
        functional.normalize(torch.relu(x @ y.mean(1)[:, :, None])[:, :, 0], p=1, dim=1)
        for x, y in ((u_bnc, v_bnc), (v_bnc, u_bnc))
    ]
    u, v = (functional.normalize(x, dim=2) for x in (u_bnc, v_bnc))
    cost: Tensor = loss(masses[0], u, masses[1], v)
    return 1 - cost


METHODS: dict[str, Method] = {
    OURS: similarity,
    "POT's torch path": partial(similarity, transport=pot_torch),
    "entropic": partial(similarity, transport=partial(entropic, eps=EPS)),
    "SamplesLoss": samples_loss,
}
KKT = "KKT layer (qpth)"


def forward_and_backward(method: Method, maps: tuple[Tensor, Tensor]) -> None:
    """One training step's worth of work."""
    torch.autograd.grad(method(*maps).sum(), maps)


def methods_at(positions: int) -> dict[str, Method]:
    """The methods that a size is timed with."""
    if positions <= KKT_LIMIT and importlib.util.find_spec("qpth"):
        return {**METHODS, KKT: partial(similarity, transport=kkt_layer)}
    return METHODS


def time_size(positions: int, channels: int, batch: int, batches: int) -> dict[str, Times]:
    """Processor and wall milliseconds a problem of each method, batch by batch in turns."""
    methods = methods_at(positions)
    times: dict[str, Times] = {name: [] for name in methods}
    for round_ in range(batches + 1):
        maps = dense_maps(positions, channels, batch, round_)
        for name, method in methods.items():
            if name == KKT and not 1 <= round_ <= KKT_BATCHES:
                continue
            begin = time.process_time(), time.perf_counter()
            forward_and_backward(method, maps)
            end = time.process_time(), time.perf_counter()
            if round_ > 0:  # the first round pays for imports and allocations
                cpu, wall = (1e3 * (e - b) / batch for b, e in zip(begin, end, strict=True))
                times[name].append((cpu, wall))
    return times


def summary(times: dict[str, Times]) -> Summary:
    """Times of each method, and the median of its ratios to ours, turn by turn."""
    ours = np.array(times[OURS])[:, 0]
    result = {}
    for name, pairs in times.items():
        cpu, wall = np.array(pairs).T
        result[name] = {
            "cpu_ms_p50": float(np.median(cpu)),
            "cpu_ms_min": float(cpu.min()),
            "wall_ms_p50": float(np.median(wall)),
            "wall_ms_min": float(wall.min()),
            "ratio": float(np.median(cpu / ours[: len(cpu)])),
        }
    return result


def show(size: int, row: Summary) -> None:
    """Print a line a method."""
    for name, found in row.items():
        numbers = "  ".join(f"{key} {number:.2f}" for key, number in found.items())
        typer.echo(f"HW {size:<4d} {name:18s} {numbers}")


def plot(results: dict[int, Summary], channels: int, path: Path) -> None:
    """Draw time against HW, a line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    results = dict(sorted(results.items()))
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name in (*METHODS, KKT):
        points = [(size, row[name]["cpu_ms_p50"]) for size, row in results.items() if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set(
        xscale="log", yscale="log", xlabel="positions HW", ylabel="processor ms a problem, p50"
    )
    axes.set_title(f"EMD similarity, forward + backward, C = {channels}, CPU", fontsize=10)
    axes.set_xticks(list(results), [str(size) for size in results])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def run(
    channels: Annotated[int, typer.Option(min=1, help="C.")] = 768,
    sizes: Annotated[list[int], typer.Option("--size", min=1, help="HW; repeat it.")] = SIZES,
    batch: Annotated[int, typer.Option(min=1, help="Problems in a batch.")] = 8,
    batches: Annotated[int, typer.Option(min=1, help="Batches timed of each size.")] = 7,
    json: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
    plot_to: Annotated[Path | None, typer.Option("--plot", help="Where to draw it.")] = None,
) -> None:
    """Time all methods at all sizes and print each one's time and ratio to ours."""
    torch.set_num_threads(1)
    results = {}
    for size in sizes:
        results[size] = summary(time_size(size, channels, batch, batches))
        show(size, results[size])
    if plot_to is not None:
        plot(results, channels, plot_to)
    if json is not None:
        report = {
            "results": {str(size): row for size, row in results.items()},
            "options": {"channels": channels, "batch": batch, "batches": batches, "eps": EPS},
            "provenance": provenance(seed=SEED),
        }
        write_json(report, json)


if __name__ == "__main__":
    typer.run(run)
