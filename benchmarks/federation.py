# SPDX-License-Identifier: Apache-2.0
"""Memory and time of federated rounds at paper scale, on random images: no data needed.

    python benchmarks/federation.py                 # 11 silos, R50-ViT at 256 x 256, batch 1

A round: one step at home, one overseas for each link of the ring, merging; without distillation,
as the public reference code has it. Prints seconds a round and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fedefm_core.config import parse_settings
from fedefm_core.federation.algorithms.mfd import MfdSettings, train_round
from fedefm_core.federation.carrier import InProcess
from fedefm_core.federation.data import LabelledImages
from fedefm_core.federation.schedule import Schedule
from fedefm_core.federation.shelf import DiskShelf, MemoryShelf, Shelf
from fedefm_core.federation.silo import Silo, TrainingSettings
from fedefm_core.federation.state import state_of
from fedefm_core.federation.topology_overlays import build_topology
from fedefm_core.federation.underlays import alike
from fedefm_core.networks import build_network
from fedefm_core.networks.foundation import FoundationNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--silos", type=int, default=11)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2, help="after round 0, at home alone")
    parser.add_argument("--architecture", default="r50_vit")
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--in-memory", action="store_true", help="weights in memory, not on disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shelf: Shelf = MemoryShelf() if options.in_memory else DiskShelf(Path(folder))
        run(options, shelf)


def run(options: argparse.Namespace, shelf: Shelf) -> None:
    torch.manual_seed(0)
    shape = {"classes": options.silos, "image_size": options.size}
    network = build_network(options.architecture, shape)
    assert isinstance(network, FoundationNetwork)
    values = {"batch_size": options.batch, "optimiser": {"momentum": options.momentum}}
    training = parse_settings(TrainingSettings, values)
    names = [f"silo{number:02d}" for number in range(options.silos)]
    rng = np.random.default_rng(0)
    silos = []
    for number, name in enumerate(names):
        images = rng.integers(0, 256, (4, options.size, options.size), dtype=np.uint8)
        data = LabelledImages(images, np.full(4, number, np.int64))
        silos.append(Silo(name, data, network, training, options.silos, seed=0))
    carrier = InProcess(silos, state_of(network), shelf, "stop")
    schedule = Schedule(build_topology("ring", alike(names)), 1, options.rounds + 1)
    for round in range(options.rounds + 1):
        began = time.perf_counter()
        carrier.begin(round, {})
        train_round(MfdSettings(distil_steps=0), carrier, schedule, round)
        carrier.end()
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - began
        sent = sum(carrier.record.traffic.values()) / 1e6
        print(
            f"round {round}: {seconds:.1f} s, {sent:.0f} MB sent, peak {peak_mib:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
