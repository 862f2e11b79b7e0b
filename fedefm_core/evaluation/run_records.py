# SPDX-License-Identifier: Apache-2.0
"""What is known of a training run or of an evaluation, read from the files that it left."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fedefm_core.errors import OutputError

# Of a run of finetune or distill.
METRICS_FILE = "metrics.jsonl"
CONFIG_FILE = "config.yaml"
BEST_WEIGHTS = "best.safetensors"
LAST_WEIGHTS = "last.safetensors"


@dataclass(frozen=True)
class RunRecord:
    """config: of the training, {} of an evaluation alone. metrics: its log, a line a dict.

    evaluations: by name, the reports of 'evaluate' that lie in the run's folder, or the one that
    was named.
    """

    name: str
    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def is_training(self) -> bool:
        return bool(self.config)

    def split(self, split: str) -> list[Mapping[str, Any]]:
        """The lines of the log that are about 'train' or 'validation'."""
        return [line for line in self.metrics if line["split"] == split]

    def best(self) -> Mapping[str, Any] | None:
        """The validation that the best checkpoint was chosen by; None before the first."""
        lines = self.split("validation")
        metric = str(self.config.get("validation", {}).get("metric", "dice_mean"))
        known = [line for line in lines if math.isfinite(line.get(metric, math.nan))]
        return max(known, key=lambda line: float(line[metric]), default=None)


def read_records(paths: Sequence[Path]) -> list[RunRecord]:
    """One record a path: a folder of 'finetune' or 'distill', or a report of 'evaluate'.

    Names are those of folders or files, made different where two are equal. Raises OutputError,
    naming the path, for anything else.
    """
    records = [_read(path) for path in paths]
    names = [record.name for record in records]
    return [
        record
        if names.count(record.name) == 1
        else RunRecord(
            f"{record.path.resolve().parent.name}/{record.name}",
            record.path,
            record.config,
            record.metrics,
            record.evaluations,
        )
        for record in records
    ]


def _read(path: Path) -> RunRecord:
    if path.is_dir():
        return _read_run(path)
    report = _read_json(path)
    if report is None:
        raise OutputError(
            f"{path} must be the folder of a training run or a report of 'evaluate' (it is "
            f"{'something else' if path.exists() else 'not there'})"
        )
    return RunRecord(path.stem, path, evaluations={path.stem: report})


def _read_run(path: Path) -> RunRecord:
    try:
        config = yaml.safe_load((path / CONFIG_FILE).read_text())
        lines = (path / METRICS_FILE).read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OutputError(
            f"{path} is no folder of a training run with {CONFIG_FILE} and {METRICS_FILE}: {error}"
        ) from error
    if not isinstance(config, dict) or not all(_is_line(m) for m in metrics):
        raise OutputError(
            f"{path} is no folder of 'finetune' or 'distill': its {CONFIG_FILE} or {METRICS_FILE} "
            "is another command's, or damaged"
        )
    found = {file.stem: _read_json(file) for file in sorted(path.glob("*.json"))}
    evaluations = {name: report for name, report in found.items() if report is not None}
    return RunRecord(path.resolve().name, path, config, metrics, evaluations)


def _is_line(metrics: Any) -> bool:
    return isinstance(metrics, dict) and {"step", "split"} <= metrics.keys()


def _read_json(path: Path) -> dict[str, Any] | None:
    """A report of 'evaluate', None when it is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    is_report = isinstance(content, dict) and {"groups", "frames", "model"} <= content.keys()
    return content if is_report and "classes" in content["groups"].get("all", {}) else None
