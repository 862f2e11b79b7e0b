# SPDX-License-Identifier: Apache-2.0
"""What a person wants to know of a model: its metrics go into the file, its card beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from fedefm_core.errors import ModelFileError
from fedefm_core.evaluation.tables import line_table, region_table, tip_table
from fedefm_core.export.onnx import write_model
from fedefm_core.perception import ModelMetadata, read_metadata

METRICS_KEY = "groups"  # of the report that 'fedefm_core evaluate' writes


def read_report(path: Path) -> dict[str, Any]:
    """Read a JSON report. Raises ModelFileError when it is missing or no JSON object."""
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise ModelFileError(f"Cannot read the report {path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelFileError(f"The report {path} is not valid JSON: {error}") from error
    if not isinstance(report, dict):
        raise ModelFileError(f"The report {path} must be a JSON object")
    return report


def add_metrics(path: Path, report: Mapping[str, Any]) -> ModelMetadata:
    """Store the metrics of an evaluation report in the model file at path.

    Raises ModelFileError for a report that is not of this very model, and what read_metadata does.
    """
    metadata = read_metadata(path)
    measured = report.get("model")
    digest = measured.get("weights_sha256") if isinstance(measured, dict) else None
    if digest != metadata.weights_sha256 or METRICS_KEY not in report:
        raise ModelFileError(
            f"The metrics must be a report of 'fedefm_core evaluate' on {path}, whose weights "
            f"hash to {metadata.weights_sha256[:12]}… (got a report on {str(digest)[:12]}…)"
        )
    metadata = replace(metadata, metrics=report[METRICS_KEY])
    write_model(onnx.load(path), metadata, path)
    return metadata


def read_parity(path: Path, metadata: ModelMetadata) -> dict[str, Any]:
    """Parities by precision from an export's report; {} without one, or when it is of another."""
    report = read_report(path) if path.is_file() else {}
    if report.get("weights_sha256") != metadata.weights_sha256:
        return {}
    return dict(report["parity"])


def read_study(path: Path, metadata: ModelMetadata) -> dict[str, Any]:
    """A report of the study of real images. Raises ModelFileError when it is of another model."""
    report = read_report(path)
    digest = report.get("weights_sha256")
    if digest != metadata.weights_sha256 or not isinstance(report.get("table"), list):
        raise ModelFileError(
            f"{path} must be a report of 'fedefm_core experiment config/experiments/"
            f"real_images.yaml' on the model with the weights {metadata.weights_sha256[:12]}… "
            f"(got {str(digest)[:12]}…)"
        )
    return report


def read_notes(path: Path) -> str:
    """Markdown from a file. Raises ModelFileError when it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"Cannot read the notes {path}: {error}") from error


def model_card(
    metadata: ModelMetadata,
    parities: Mapping[str, Any],
    study: Mapping[str, Any] | None = None,
    notes: str = "",
) -> str:
    """Markdown that says what the model is, where it comes from, what it can and what it cannot.

    parities, study, notes: as read_parity, read_study and read_notes give them.
    """
    parts = [
        f"<!-- SPDX-License-Identifier: {metadata.licence} -->\n# {metadata.name}\n\n"
        f"**{metadata.intended_use}** Licence: {metadata.licence}.",
        "## The model\n\n" + _table(_facts(metadata)),
        "## Data\n\n" + (metadata.data or "Not recorded.") + _config(metadata),
        "## Metrics\n\n" + _metrics(metadata.metrics),
    ]
    if parities:
        drifts = (_drift(precision, parity) for precision, parity in parities.items())
        parts.append("## Parity\n\n" + "\n".join(drifts))
    if study is not None:
        parts.append("## Real images\n\n" + _table(study["table"]))
    if notes:
        parts.append("## Failures seen\n\n" + notes)
    parts.append(
        "## Limits\n\nThe metrics hold for images like those they were measured on. They say "
        "nothing about patients, other scanners, or instruments that the data do not show."
    )
    return "\n\n".join(parts) + "\n"


def _facts(metadata: ModelMetadata) -> list[tuple[str, ...]]:
    height, width = metadata.input_size
    return [
        ("property", "value"),
        ("architecture", metadata.architecture),
        ("precision", metadata.precision),
        ("input", f"{height} x {width} grey, 8 bit; {metadata.normalisation}"),
        ("classes", ", ".join(metadata.classes)),
        ("weights sha256", metadata.weights_sha256),
        ("git revision", metadata.git_revision or "unknown"),
    ]


def _config(metadata: ModelMetadata) -> str:
    digest = metadata.training_config_sha256
    return f"\n\nThe training's settings hash to `{digest}`." if digest else ""


def _metrics(groups: Mapping[str, Any]) -> str:
    if not groups:
        return "Not measured."
    text = (
        "Means over frames with their intervals in brackets; docs/metrics.md has the definitions."
    )
    tables = [_pooled_table(groups), region_table(groups), tip_table(groups)]
    if groups["all"].get("lines"):
        tables.append(line_table(groups))
    return "\n\n".join([text, *(_table(table) for table in tables)])


def _pooled_table(groups: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Dice over the pixels of all frames together, by kind of image and class."""
    regions = list(groups["all"]["regions"])
    rows = [("Dice, pooled over pixels", *regions)]
    for group, summary in groups.items():
        dice = (summary["regions"][region]["dice"]["pooled"] for region in regions)
        rows.append((group, *("-" if value is None else f"{value:.3f}" for value in dice)))
    return rows


def _drift(precision: str, parity: Mapping[str, Any]) -> str:
    return (
        f"- {precision} beside {parity['reference']}, {parity['frames']} simulated frames: "
        f"{parity['differing_pixels']} of {parity['pixels']} pixels differ; the foreground has "
        f"{parity['foreground_pixels']}."
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
