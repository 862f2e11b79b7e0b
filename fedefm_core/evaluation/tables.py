# SPDX-License-Identifier: Apache-2.0
"""Metrics as tables for people: rows of text, the header first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def region_table(groups: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: the main metrics of each kind of image and class."""
    rows: list[tuple[str, ...]] = [("images", "class", "n", "Dice", "IoU", "clDice", "line F1")]
    for group, summary in groups.items():
        for region, metrics in summary["regions"].items():
            others = (_value(metrics[m], "mean", 3) for m in ("iou", "cldice", "centerline_f1"))
            dice = _with_interval(metrics["dice"], "mean", 3)
            rows.append((group, region, str(metrics["dice"]["n"]), dice, *others))
    return rows


def class_table(groups: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: all classes together, and distances of the foreground."""
    rows: list[tuple[str, ...]] = [
        ("images", "mIoU", "with backgr.", "HD95 px", "line px", "F1 1 px", "2 px", "5 px")
    ]
    for group, summary in groups.items():
        classes, distances = summary["classes"], summary["distances"]["foreground"]
        f1 = distances["centerline_f1_at"]
        rows.append(
            (
                group,
                _with_interval(classes["miou_without_background"], "mean", 3),
                _value(classes["miou_with_background"], "mean", 3),
                _value(distances["hausdorff95_px"], "mean", 1),
                _value(distances["centerline_px"], "mean", 1),
                *(_value(f1[tolerance], "mean", 2) for tolerance in ("1", "2", "5")),
            )
        )
    return rows


def tip_table(groups: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: tip errors of each kind of image and instrument."""
    rows: list[tuple[str, ...]] = [
        ("images", "tip of", "n", "median px", "p95 px", "missed", "false")
    ]
    for group, summary in groups.items():
        for kind, tips in (summary["tips"] or {}).items():
            error = tips["error_px"]
            rows.append(
                (
                    group,
                    kind,
                    str(error["n"]),
                    _with_interval(error, "median", 2),
                    _value(error, "p95", 2),
                    *(f"{tips[x]['count']}/{tips[x]['n']}" for x in ("missed", "false")),
                )
            )
    return rows


def line_table(groups: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A table for people, header first: share of the instruments found, by width and contrast."""
    rows: list[tuple[str, ...]] = [("stretches by", "range", "n", "found", "as their kind")]
    for name, bins in (groups["all"]["lines"] or {}).items():
        for label, values in bins.items():
            shares = (_percent(values[key]) for key in ("recall", "recall_as_kind"))
            rows.append((name, label, str(values["n"]), *shares))
    return rows


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _value(summary: Mapping[str, Any], name: str, digits: int) -> str:
    return "-" if summary[name] is None else f"{summary[name]:.{digits}f}"


def _with_interval(summary: Mapping[str, Any], name: str, digits: int) -> str:
    interval = summary[f"{name}_interval"]
    bounds = "" if interval is None else " [{:.2f} {:.2f}]".format(*interval)
    return _value(summary, name, digits) + bounds
