# SPDX-License-Identifier: Apache-2.0
"""The log of a run: a JSON line a round, the same for TensorBoard, and what was spent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from fedefm_core.federation.carrier import PHASES, RoundRecord

METRICS = "metrics.jsonl"


@dataclass
class Totals:
    """Spent so far by all silos: gradient steps by phase, bytes on the road, simulated ms, and
    seconds that this machine took."""

    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    bytes: int = 0
    simulated_ms: float = 0.0
    seconds: float = 0.0

    def add(self, record: RoundRecord, simulated_ms: float, seconds: float) -> None:
        """Count one more round."""
        for phase, steps in record.steps.items():
            self.steps[phase] += steps
        self.bytes += sum(record.traffic.values())
        self.simulated_ms += simulated_ms
        self.seconds += seconds


def round_line(
    record: RoundRecord, totals: Totals, simulated_ms: float, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """What is logged of a round, as plain values; links are 'a->b'."""
    return {
        "round": record.number,
        "losses": record.losses,
        **measured,
        "similarity": {"->".join(link): value for link, value in record.similarity.items()},
        "steps": record.steps,
        "bytes": sum(record.traffic.values()),
        "bytes_by_link": {"->".join(link): size for link, size in record.traffic.items()},
        "simulated_ms": simulated_ms,
        "failures": record.failures,
        "total": asdict(totals),
    }


class Log:
    """Writes rounds to run_dir; a context. first: rounds from it on, of an earlier attempt, are
    removed."""

    def __init__(self, run_dir: Path, first: int, tensorboard: bool) -> None:
        self._path = run_dir / METRICS
        _keep_before(self._path, first)
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(run_dir / "tensorboard", purge_step=first)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a round."""
        with self._path.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in _numbers("", line):
                self._writer.add_scalar(name, value, line["round"])

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _numbers(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """All numbers of a nested mapping by their path."""
    for name, value in values.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, Mapping):
            yield from _numbers(path, value)
        elif isinstance(value, int | float) and path != "round":
            yield path, value


def _keep_before(path: Path, first: int) -> None:
    """Keep the lines of rounds before first; a line that a kill cut off goes too."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text().splitlines():
        try:
            if json.loads(text)["round"] < first:
                kept.append(text + "\n")
        except ValueError:
            continue
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(kept))
    os.replace(partial, path)
