# SPDX-License-Identifier: Apache-2.0
"""Figures of a demo run, from what was sent and what came back: plain data in, plain data out."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedefm_core.perception.types import INSTRUMENT_KINDS

NO_TRUTH = "the source is a recording: nothing tells where its tips truly are"
LOST = (
    "Lost frames came before the node was free: it takes the newest, drops the others and those "
    "that have grown too old, and never lets them queue. Its own counts are in report.json."
)
Point = tuple[float, float]


@dataclass(frozen=True)
class SentFrame:
    """A line of playback_node's log. number: the frame's place in its source, from 0."""

    number: int
    stamp_ns: int
    crc32: int


def read_sent(log: Path) -> list[SentFrame]:
    """The frames that playback_node sent, in order."""
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return [SentFrame(x["frame"], x["stamp_ns"], x["crc32"]) for x in lines if x["sent"]]


@dataclass(frozen=True)
class FrameRecord:
    """One sent frame and the node's answer to it.

    stamp_ns: as sent. mask_ms, tip_ms: from the stamp to reception, tips by kind; None and
    missing mean that nothing came. tips_px: reported tips by kind. true_tips_px: all true tips by
    kind, None when no truth exists. state: message of the state topic for this stamp.
    """

    stamp_ns: int
    mask_ms: float | None = None
    tip_ms: Mapping[str, float] = field(default_factory=dict)
    tips_px: Mapping[str, Point] = field(default_factory=dict)
    true_tips_px: Mapping[str, Sequence[Point]] | None = None
    state: str | None = None

    def error_px(self, kind: str) -> float | None:
        """Distance from the reported to the nearest true tip of the kind; None without both."""
        if self.true_tips_px is None or kind not in self.tips_px:
            return None
        reported = self.tips_px[kind]
        return min((math.dist(reported, true) for true in self.true_tips_px[kind]), default=None)


def count_frames(sent: Collection[int], received: Collection[int]) -> dict[str, int]:
    """Frames sent, answered and lost, matched by stamp; an answer to no sent stamp is 'unknown'.

    Answers from before the first sent stamp belong to the rehearsal and are not counted.

    >>> count_frames([1, 2, 3], [2, 3, 9])
    {'sent': 3, 'received': 2, 'lost': 1, 'unknown': 1}
    """
    answered = set(sent) & set(received)
    return {
        "sent": len(sent),
        "received": len(answered),
        "lost": len(sent) - len(answered),
        "unknown": sum(stamp > min(sent) for stamp in set(received) - answered),
    }


def percentiles(values: Iterable[float]) -> dict[str, float | int | None]:
    """p50, p95, p99 and max by linear interpolation between ranks, and n; None when n is 0.

    >>> percentiles([3.0, 1.0, 2.0])["p50"]
    2.0
    """
    array = np.fromiter(values, dtype=np.float64)
    result: dict[str, float | int | None] = {"p50": None, "p95": None, "p99": None, "max": None}
    if array.size:
        for name, percent in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100)):
            result[name] = round(float(np.percentile(array, percent)), 3)
    return {**result, "n": int(array.size)}


def tip_counts(records: Sequence[FrameRecord], kind: str) -> dict[str, int]:
    """How many answered frames have a reported tip and, where the truth is known, rightly so.

    valid: a tip was reported; absent: none was. With truth also found (there is one and it was
    reported, however far off: see the error), false (there is none) and missed (not reported).
    """
    answered = [r for r in records if r.mask_ms is not None]
    valid = sum(kind in r.tips_px for r in answered)
    counts = {"valid": valid, "absent": len(answered) - valid}
    known = [(kind in r.tips_px, r.true_tips_px[kind]) for r in answered if r.true_tips_px]
    if known:
        counts["found"] = sum(reported and bool(true) for reported, true in known)
        counts["false"] = sum(reported and not true for reported, true in known)
        counts["missed"] = sum(not reported and bool(true) for reported, true in known)
    return counts


def tip_errors(records: Sequence[FrameRecord]) -> dict[str, Any] | None:
    """Tip error in pixels of the input, by kind; None when no record has a truth."""
    if all(record.true_tips_px is None for record in records):
        return None
    errors = {kind: [r.error_px(kind) for r in records] for kind in INSTRUMENT_KINDS}
    return {kind: percentiles(e for e in errors[kind] if e is not None) for kind in errors}


def summarise(records: Sequence[FrameRecord], received: Collection[int]) -> dict[str, Any]:
    """The measured part of report.json; received: all stamps that an answer came for."""
    errors = tip_errors(records)
    summary: dict[str, Any] = {
        "frames": count_frames([r.stamp_ns for r in records], received),
        "latency_ms": percentiles(max(r.tip_ms.values()) for r in records if r.tip_ms),
        "latency_measured": "from an image's stamp to the arrival of its tip_pixel, of the later "
        "one where it has two, in the recorder's callback; frames with a valid tip only",
        "latency_by_topic_ms": {
            "mask": percentiles(r.mask_ms for r in records if r.mask_ms is not None),
            **{
                f"{kind}/tip_pixel": percentiles(tip_latencies(records, kind))
                for kind in INSTRUMENT_KINDS
            },
        },
        "tips": {kind: tip_counts(records, kind) for kind in INSTRUMENT_KINDS},
        "tip_error_px": errors,
    }
    if errors is None:
        summary["tip_error_reason"] = NO_TRUTH
    return summary


def tip_latencies(records: Sequence[FrameRecord], kind: str) -> list[float]:
    """Milliseconds from stamp to tip, over the frames that have a tip of the kind."""
    return [r.tip_ms[kind] for r in records if kind in r.tip_ms]


def print_summary(report: Mapping[str, Any], folder: Path) -> None:
    """Print the figures as a short table, and where the pictures are."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report['source']}: {report['model']['name']} on {report['runtime']}")
    table.add_column("what")
    table.add_column("value")
    for row in summary_rows(report):
        table.add_row(*row)
    console = Console()
    console.print(table)
    if report["frames"]["lost"]:
        console.print(LOST, soft_wrap=True)
    console.print(
        f"Look at {folder}/overlay.mp4 (VLC, mpv or ffplay), contact_sheet.png and "
        "tip_and_latency.png; all figures are in report.json.",
        soft_wrap=True,
    )


def summary_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The short table as (what, value)."""
    counts = "sent {sent}, received {received}, lost {lost}".format(**report["frames"])
    latency = _in_words(report["latency_ms"], "ms")
    rows = [("frames", counts), ("stamp to tip", latency)]
    for kind in INSTRUMENT_KINDS:
        tips = ", ".join(f"{name} {n}" for name, n in report["tips"][kind].items())
        rows.append((f"{kind} tip", tips))
        if report["tip_error_px"] is not None:
            rows.append((f"{kind} tip error", _in_words(report["tip_error_px"][kind], "px")))
    return rows


def _in_words(summary: Mapping[str, Any], unit: str) -> str:
    if not summary["n"]:
        return "none"
    values = ", ".join(f"{name} {summary[name]:.1f}" for name in ("p50", "p95", "p99", "max"))
    return f"{values} {unit}"
