# SPDX-License-Identifier: Apache-2.0
"""The state of a federation after a round, written in one step: a folder of safetensors.

    checkpoint-00007/SILO.safetensors    weights, previous, optimiser and prototypes of a silo
    checkpoint-00007/progress.json       the round, the silos, what was spent so far

Random streams depend on seed, silo and round alone (data.stream), so there is no state of them to
keep. The folder gets its name when all in it is on disk: a run that is killed at any moment finds
either this round whole or the one before it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedefm_core.errors import OutputError, WeightsError
from fedefm_core.federation.carrier import InProcess
from fedefm_core.federation.prototypes import ClassStatistics
from fedefm_core.federation.state import State

_PARTIAL = "checkpoint.partial"
_PATTERN = "checkpoint-[0-9]*"


def save_checkpoint(
    run_dir: Path, round: int, carrier: InProcess, totals: Mapping[str, Any], keep: int = 1
) -> None:
    """Write the state after a round, then remove all but the newest keep. Raises OutputError."""
    partial = run_dir / _PARTIAL
    folder = run_dir / f"checkpoint-{round:05d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in carrier.silos:
            _save_silo(partial / f"{name}.safetensors", name, carrier)
        progress = {"round": round, "silos": list(carrier.silos), "totals": dict(totals)}
        (partial / "progress.json").write_text(json.dumps(progress))
        for path in [*partial.iterdir(), partial]:
            _flush(path)
        os.replace(partial, folder)
        _flush(run_dir)
        for path in sorted(run_dir.glob(_PATTERN))[:-keep]:
            shutil.rmtree(path, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"Cannot write the checkpoint {folder}: {error}") from error


def load_checkpoint(
    run_dir: Path, carrier: InProcess, before: int | None = None
) -> tuple[int, dict[str, Any]] | None:
    """Restore the newest state, of a round before that one where one is given; its round and
    totals, or None when there is none yet.

    Raises WeightsError when it is damaged or of other silos.
    """
    folders = [
        folder
        for folder in sorted(run_dir.glob(_PATTERN))
        if before is None or int(folder.name.rpartition("-")[2]) < before
    ]
    if not folders:
        return None
    folder = folders[-1]
    try:
        progress = json.loads((folder / "progress.json").read_text())
        if progress["silos"] != list(carrier.silos):
            raise WeightsError(
                f"{folder} is of other silos: {', '.join(progress['silos'])} "
                f"(these are {', '.join(carrier.silos)})"
            )
        for name in carrier.silos:
            _load_silo(folder / f"{name}.safetensors", name, carrier)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"The checkpoint {folder} is damaged: {error}") from error
    return int(progress["round"]), dict(progress["totals"])


def _save_silo(path: Path, name: str, carrier: InProcess) -> None:
    silo = carrier.members[name]
    tensors = _prefixed("weights", carrier.weights(name))
    tensors |= _prefixed("previous", carrier.previous(name) or {})
    tensors |= _prefixed("optimiser", silo.optimiser_state)
    for source, entry in silo.table.items():
        tensors |= _prefixed(
            f"table/{source}",
            {"counts": entry.counts_k, "mean": entry.mean_kd, "variance": entry.variance_kd},
        )
    measured = {source: entry.round for source, entry in silo.table.items()}
    save_file(tensors, path, metadata={"measured": json.dumps(measured)})


def _load_silo(path: Path, name: str, carrier: InProcess) -> None:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        measured: dict[str, int] = json.loads(file.metadata()["measured"])
    carrier.restore(name, _part("weights", tensors), _part("previous", tensors) or None)
    silo = carrier.members[name]
    silo.optimiser_state = _part("optimiser", tensors)
    silo.table = {source: _statistics(source, at, tensors) for source, at in measured.items()}


def _statistics(source: str, round: int, tensors: State) -> ClassStatistics:
    part = _part(f"table/{source}", tensors)
    return ClassStatistics(round, part["counts"], part["mean"], part["variance"])


def _prefixed(prefix: str, state: State) -> dict[str, Tensor]:
    # Copies: safetensors refuses tensors that share memory, as two slots of a silo may.
    return {f"{prefix}/{name}": tensor.clone().contiguous() for name, tensor in state.items()}


def _part(prefix: str, tensors: State) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _flush(path: Path) -> None:
    """Have what was written to a file or folder on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
