# SPDX-License-Identifier: Apache-2.0
"""Figures of the closed loop, from its recordings alone: plain data in, plain data out.

Motion is judged by the clocks of those who moved and who permitted, which are the same machine's:
each sample of the robot's drive has its own stamp, and so has each decision of the guard. So what
came late to the recorder, on a busy machine, accuses nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedefm_core.frames.bag import RecordedMessage, read_messages
from fedefm_core.simulation.navigation_case import PIXEL_MM, random_case
from fedefm_ros import interface
from fedefm_ros.demo_report import percentiles
from fedefm_ros.simulated_view import NONE

Array = npt.NDArray[np.float64]

MAY_STOP_WITHIN_S = 0.1
_SAME_S = 1e-6  # by which floats of equal stamps may differ
REACHED_MM = 5.0  # the true tip, from the target
MM_PER_M = 1000.0
TIP = interface.tip("guidewire")
TOPICS = (
    interface.ROBOT_JOINTS,
    interface.MOTION_STATE,
    interface.NAVIGATION_STATE,
    interface.TRUE_TIP,
    interface.TROUBLE,
    TIP,
)


@dataclass(frozen=True)
class Track:
    """Samples over time. seconds: (N,) from the begin of the recording. values: (N, K)."""

    seconds: Array
    values: Array

    def at(self, seconds: Array) -> Array:
        """(M, K) linear in between."""
        return np.stack([np.interp(seconds, self.seconds, v) for v in self.values.T], axis=1)


@dataclass(frozen=True)
class Span:
    """From begin to end, seconds."""

    begin: float
    end: float


@dataclass(frozen=True)
class Withdrawal:
    """When permission ended, in seconds, and by which reason."""

    at: float
    reason: str


@dataclass(frozen=True)
class Episode:
    """One case as recorded. Millimetres in the image plane, seconds from its begin.

    drive: insertion mm, rotation rad. permitted: when motion was. true_tip, seen_tip: x, y, by the
    stamps of the images. trouble_span: None without. retries: how often the navigator went back.
    """

    seed: int
    trouble: str
    drive: Track
    permitted: Sequence[Span]
    withdrawals: Sequence[Withdrawal]
    true_tip: Track
    seen_tip: Track
    trouble_span: Span | None
    retries: int
    said_reached: bool
    begin_ns: int = 0
    path_mm: Array = field(default_factory=lambda: np.zeros((1, 2)))

    @property
    def seconds(self) -> float:
        """Of the whole case."""
        return float(self.drive.seconds[-1]) if len(self.drive.seconds) else 0.0

    @property
    def final_error_mm(self) -> float:
        """From the true tip to the target, at the end."""
        if not len(self.true_tip.values):
            return float("inf")
        return float(np.linalg.norm(self.true_tip.values[-1] - self.path_mm[-1]))

    @property
    def reached(self) -> bool:
        """The navigator says so, and it is true."""
        return self.said_reached and self.final_error_mm <= REACHED_MM

    def path_errors_mm(self) -> Array:
        """(N,) from each true tip to the planned path."""
        gaps = self.true_tip.values[:, None] - self.path_mm[None]
        return np.asarray(np.linalg.norm(gaps, axis=2).min(axis=1))

    def tip_errors_mm(self) -> Array:
        """(N,) from each tip that was seen to the true one of the same frame."""
        if not len(self.true_tip.seconds) or not len(self.seen_tip.seconds):
            return np.zeros(0)
        true = self.true_tip.at(self.seen_tip.seconds)
        return np.asarray(np.linalg.norm(self.seen_tip.values - true, axis=1))


# --- motion and permission --------------------------------------------------------------------


def moving(drive: Track) -> npt.NDArray[np.bool_]:
    """(N,) which samples of the drive lie elsewhere than the one before; the first does not."""
    moved = np.abs(np.diff(drive.values, axis=0)).max(axis=1, initial=0.0) > 0
    return np.concatenate([[False], moved])


def after_permission_s(drive: Track, permitted: Sequence[Span]) -> Array:
    """(M,) for each sample that moved: 0 within a span, else the time since the last one ended.

    Infinite before the first.
    """
    times = drive.seconds[moving(drive)]
    result = np.full(len(times), np.inf)
    for span in permitted:
        since = np.where(times >= span.begin, np.maximum(times - span.end, 0.0), np.inf)
        result = np.minimum(result, since)
    return result


def spans(seconds: Sequence[float], values: Sequence[bool], end: float) -> list[Span]:
    """When values are true, each holding until the next; the last until end."""
    found: list[Span] = []
    begin: float | None = None
    for at, value in zip(seconds, values, strict=True):
        if value and begin is None:
            begin = at
        elif not value and begin is not None:
            found.append(Span(begin, at))
            begin = None
    return found if begin is None else [*found, Span(begin, max(end, begin))]


# --- reading ----------------------------------------------------------------------------------


def read_episode(path: Path, seed: int, trouble: str) -> Episode:
    """The episode in a recording. Raises FrameError when it cannot be read."""
    by_topic: dict[str, list[RecordedMessage]] = {topic: [] for topic in TOPICS}
    for message in read_messages(path, [f"/{topic}" for topic in TOPICS]):
        by_topic[message.topic.lstrip("/")].append(message)
    begin_ns = min((m.stamp_ns for m in by_topic[interface.ROBOT_JOINTS]), default=0)

    def seconds(message: RecordedMessage) -> float:
        return (message.stamp_ns - begin_ns) * 1e-9

    drive = _track(by_topic[interface.ROBOT_JOINTS], seconds, _drive)
    states = [(seconds(m), _values(m.data)) for m in by_topic[interface.MOTION_STATE]]
    end = float(drive.seconds[-1]) if len(drive.seconds) else 0.0
    navigation = [_values(m.data) for m in by_topic[interface.NAVIGATION_STATE]]
    mine = [values for values in navigation if values["seed"] == str(seed)]
    return Episode(
        seed=seed,
        trouble=trouble,
        drive=drive,
        permitted=spans(
            [at for at, _ in states], [v["permitted"] == "true" for _, v in states], end
        ),
        withdrawals=_withdrawals(states),
        true_tip=_track(by_topic[interface.TRUE_TIP], seconds, _point),
        seen_tip=_track(by_topic[TIP], seconds, _pose),
        trouble_span=_trouble_span(by_topic[interface.TROUBLE], begin_ns),
        retries=int(mine[-1]["retries"]) if mine else 0,
        said_reached=any(values["phase"] == "REACHED" for values in mine),
        begin_ns=begin_ns,
        path_mm=np.asarray(random_case(seed).plan.path) * PIXEL_MM,
    )


def _values(message: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in message.status[0].values}


def _track(messages: Sequence[RecordedMessage], seconds: Any, value: Any) -> Track:
    rows = [value(message.data) for message in messages]
    times = np.array([seconds(message) for message in messages])
    return Track(times, np.array(rows, np.float64).reshape(len(rows), -1))


def _drive(message: Any) -> tuple[float, float]:
    return message.position[0] * MM_PER_M, message.position[1]


def _point(message: Any) -> tuple[float, float]:
    return message.point.x * MM_PER_M, message.point.y * MM_PER_M


def _pose(message: Any) -> tuple[float, float]:
    position = message.pose.pose.position
    return position.x * MM_PER_M, position.y * MM_PER_M


def _withdrawals(states: Sequence[tuple[float, Mapping[str, str]]]) -> list[Withdrawal]:
    found = []
    for (_, before), (at, after) in pairwise(states):
        if before["permitted"] == "true" and after["permitted"] == "false":
            found.append(Withdrawal(at, after["withdrawn_by"]))
    return found


def _trouble_span(messages: Sequence[RecordedMessage], begin_ns: int) -> Span | None:
    """Dated by their arrival, for they have no stamp."""
    on = [(m.received_ns - begin_ns) * 1e-9 for m in messages if m.data.data != NONE]
    return Span(on[0], on[-1]) if on else None


# --- figures ----------------------------------------------------------------------------------


def figures(episode: Episode) -> dict[str, Any]:
    """All figures of one case."""
    late = after_permission_s(episode.drive, episode.permitted)
    path, tips = episode.path_errors_mm(), episode.tip_errors_mm()
    result: dict[str, Any] = {
        "seed": episode.seed,
        "trouble": episode.trouble,
        "reached": bool(episode.reached),
        "seconds": round(episode.seconds, 2),
        "final_error_mm": round(episode.final_error_mm, 2),
        "path_error_mm": percentiles(path),
        "tip_error_mm": percentiles(tips),
        "retries": episode.retries,
        "stops": len(episode.withdrawals),
        "stops_by_reason": dict(sorted(Counter(w.reason for w in episode.withdrawals).items())),
        "permitted_share": round(
            sum(s.end - s.begin for s in episode.permitted) / max(episode.seconds, 1e-9), 3
        ),
        "samples": len(episode.drive.seconds),
        "samples_that_moved": len(late),
        "samples_that_moved_without_permission": int((late > MAY_STOP_WITHIN_S + _SAME_S).sum()),
        "last_motion_after_permission_ms": round(
            1e3 * float(late[np.isfinite(late)].max(initial=0.0)), 1
        ),
    }
    if episode.trouble_span is not None:
        result["detection"] = detection(episode, episode.trouble_span)
    return result


def detection(episode: Episode, trouble: Span) -> dict[str, Any]:
    """What the guard made of trouble.

    permitted_before: motion was permitted when it began. delay_s: from its begin to the end of
    permission; None when that never came. worst_tip_error_mm: of the tips that were told of frames
    within it, and permitted_tip_error_mm of those while motion was permitted. moved_mm: fed or
    drawn back within it.
    """
    before = any(s.begin <= trouble.begin < s.end for s in episode.permitted)
    ends = [s.end for s in episode.permitted if trouble.begin <= s.end <= trouble.end]
    errors, at = episode.tip_errors_mm(), episode.seen_tip.seconds
    within = (at >= trouble.begin) & (at <= trouble.end) if len(errors) else np.zeros(0, bool)
    permitted = np.zeros(len(at), bool)
    for span in episode.permitted:
        permitted |= (at >= span.begin) & (at <= span.end)
    drive = episode.drive
    fed = drive.values[(drive.seconds >= trouble.begin) & (drive.seconds <= trouble.end), 0]
    return {
        "permitted_before": before,
        "delay_s": round(ends[0] - trouble.begin, 3) if before and ends else None,
        "worst_tip_error_mm": _largest(errors[within]) if len(errors) else None,
        "permitted_tip_error_mm": _largest(errors[within & permitted]) if len(errors) else None,
        "moved_mm": round(float(np.abs(np.diff(fed)).sum()), 2),
    }


def _largest(values: Array) -> float | None:
    return round(float(values.max()), 2) if len(values) else None


def summarise(episodes: Sequence[Episode]) -> dict[str, Any]:
    """The measured part of report.json: of all cases, by trouble, and each."""
    cases = [figures(episode) for episode in episodes]
    names = dict.fromkeys(case["trouble"] for case in cases)
    return {
        "by_trouble": {
            name: _together([case for case in cases if case["trouble"] == name], episodes)
            for name in names
        },
        "motion_without_permission": sum(
            case["samples_that_moved_without_permission"] for case in cases
        ),
        "motion_checked_samples": sum(case["samples"] for case in cases),
        "motion_checked": "each sample of the robot's drive that lies elsewhere than the one "
        "before must have come while the guard permitted motion, or at most "
        f"{MAY_STOP_WITHIN_S:g} s later, by the stamps of both",
        "cases": cases,
    }


def _together(cases: Sequence[dict[str, Any]], episodes: Sequence[Episode]) -> dict[str, Any]:
    name = cases[0]["trouble"]
    mine = [episode for episode in episodes if episode.trouble == name]
    stops: Counter[str] = Counter()
    for case in cases:
        stops.update(case["stops_by_reason"])
    result = {
        "cases": len(cases),
        "reached": sum(case["reached"] for case in cases),
        "seconds": percentiles(case["seconds"] for case in cases),
        "path_error_mm": percentiles(np.concatenate([e.path_errors_mm() for e in mine])),
        "tip_error_mm": percentiles(np.concatenate([e.tip_errors_mm() for e in mine])),
        "stops": sum(case["stops"] for case in cases),
        "stops_by_reason": dict(sorted(stops.items())),
        "last_motion_after_permission_ms": max(
            case["last_motion_after_permission_ms"] for case in cases
        ),
    }
    found = [case["detection"] for case in cases if "detection" in case]
    asked = [one for one in found if one["permitted_before"]]
    if found:
        delays = [one["delay_s"] for one in asked if one["delay_s"] is not None]
        result["detection"] = {
            "while_permitted": len(asked),
            "detected": len(delays),
            "delay_s": percentiles(delays),
        }
    return result


def print_summary(report: Mapping[str, Any], folder: Path) -> None:
    """Print the figures as a short table, and where the pictures are."""
    from rich.console import Console
    from rich.table import Table

    camera_hz = report["pace"]["camera_hz"]
    table = Table(title=f"{report['model']['name']}, camera of {camera_hz:g} Hz")
    for column in ("trouble", "reached", "time p50", "path error p50, p95", "stops", "detected"):
        table.add_column(column)
    for name, row in report["by_trouble"].items():
        table.add_row(*summary_row(name, row))
    console = Console()
    console.print(table)
    console.print(
        f"Motion without permission: {report['motion_without_permission']} of "
        f"{report['motion_checked_samples']} samples."
    )
    video = "navigate.mp4 (VLC, mpv or ffplay), " if report["loop"] == "nodes" else ""
    recordings = ", all messages in recordings" if video else ""
    console.print(
        f"Look at {folder}: {video}navigate.png and troubles.png; all figures are in "
        f"report.json{recordings}.",
        soft_wrap=True,
    )


def summary_row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the short table."""
    error, found = row["path_error_mm"], row.get("detection")
    detected = "" if found is None else f"{found['detected']} of {found['while_permitted']}"
    if found is not None and found["delay_s"]["n"]:
        detected += f", {found['delay_s']['p50']:.2f} s"
    return (
        name.replace("_", " "),
        f"{row['reached']} of {row['cases']}",
        f"{row['seconds']['p50']:.0f} s",
        f"{error['p50']:.1f}, {error['p95']:.1f} mm" if error["n"] else "",
        str(row["stops"]),
        detected,
    )
