# SPDX-License-Identifier: Apache-2.0
"""Metrics as tables for people: rows of text, the header first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def region_table(groups: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: the main metrics of each kind of image and class."""
    rows: list[tuple[str, ...]] = [
        ("images", "class", "n", "Dice", "IoU", "clDice", "centerline F1")
    ]
    for group, summary in groups.items():
        for region, metrics in summary["regions"].items():
            cells = (_cell(metrics[m]) for m in ("dice", "iou", "cldice", "centerline_f1"))
            rows.append((group, region, str(metrics["dice"]["n"]), *cells))
    return rows


def tip_table(groups: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: tip errors of each kind of image and instrument."""
    rows: list[tuple[str, ...]] = [
        ("images", "tip of", "n", "median px", "mean px", "p95 px", "missed", "false")
    ]
    for group, summary in groups.items():
        for kind, tips in (summary["tips"] or {}).items():
            error = tips["error_px"]
            rows.append(
                (
                    group,
                    kind,
                    str(error["n"]),
                    _cell(error, "median", 2),
                    _cell(error, "mean", 2),
                    _cell(error, "p95", 2),
                    *(f"{tips[x]['count']} of {tips[x]['n']}" for x in ("missed", "false")),
                )
            )
    return rows


def _cell(summary: Mapping[str, Any], name: str = "mean", digits: int = 3) -> str:
    value, interval = summary[name], summary[f"{name}_interval"]
    if value is None:
        return "-"
    text = f"{value:.{digits}f}"
    if interval is None:
        return text
    return f"{text} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
