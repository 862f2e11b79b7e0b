# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run of the closed loop, drawn after it: a video and two figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedefm_core.frames.bag import decode_message, read_messages
from fedefm_core.perception.overlay import COLORS
from fedefm_core.perception.types import GUIDEWIRE
from fedefm_core.simulation.navigation_case import PIXEL_MM
from fedefm_core.simulation.vessel_tree import SIZE
from fedefm_ros import interface
from fedefm_ros.demo_pictures import DPI, STYLE, opened_video, with_caption
from fedefm_ros.navigate_report import Episode, after_permission_s, moving
from fedefm_ros.simulated_view import NONE

Image = npt.NDArray[np.uint8]
PLAN_COLOR, YES, NO = (255, 190, 90), (90, 200, 90), (60, 60, 230)  # BGR
VIDEO_HZ = 10.0
IMAGE, MASK = "/image", f"/{interface.MASK}"
NAVIGATION = f"/{interface.NAVIGATION_STATE}"


def draw_run(episodes: Sequence[Episode], recordings: Sequence[Path | None], folder: Path) -> None:
    """Draw navigate.mp4, navigate.png and troubles.png.

    recordings: of each episode whose images were recorded, the folder; else None.
    """
    with opened_video(folder / "navigate.mp4", VIDEO_HZ) as write:
        for episode, recording in zip(episodes, recordings, strict=True):
            for panel in _panels(episode, recording) if recording else ():
                write(panel)
    _draw_cases([e for e in episodes if e.trouble == NONE], folder / "navigate.png")
    first = {episode.trouble: episode for episode in reversed(episodes)}
    _draw_troubles(list(first.values())[::-1], folder / "troubles.png")


# --- video ------------------------------------------------------------------------------------


def _panels(episode: Episode, recording: Path) -> Iterator[Image]:
    """Each frame with its mask, the plan, and whether motion was permitted when it was taken."""
    masks = {
        m.stamp_ns: np.asarray(decode_message(m), np.uint8)
        for m in read_messages(recording, [MASK])
    }
    phase = "IDLE"
    for message in read_messages(recording, [IMAGE, NAVIGATION]):
        if message.topic == NAVIGATION:
            phase = message.data.status[0].message
            continue
        grey = np.asarray(decode_message(message), np.uint8)
        seconds = (message.stamp_ns - episode.begin_ns) * 1e-9
        yield _panel(episode, grey, masks.get(message.stamp_ns), seconds, phase)


def _panel(episode: Episode, grey: Image, mask: Image | None, seconds: float, phase: str) -> Image:
    canvas = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    if mask is not None:
        canvas[mask == GUIDEWIRE] = COLORS["guidewire"]
        canvas[(mask != GUIDEWIRE) & (mask > 0)] = COLORS["catheter"]
    plan = np.rint(episode.path_mm / PIXEL_MM).astype(np.int32)
    cv2.polylines(canvas, [plan], False, PLAN_COLOR, 1, cv2.LINE_AA)
    x, y = plan[-1].tolist()
    cv2.circle(canvas, (x, y), 7, PLAN_COLOR, 2, cv2.LINE_AA)
    permitted = any(span.begin <= seconds < span.end for span in episode.permitted)
    cv2.rectangle(
        canvas, (0, 0), (len(canvas[0]) - 1, len(canvas) - 1), YES if permitted else NO, 4
    )
    trouble = episode.trouble_span
    if trouble is not None and trouble.begin <= seconds <= trouble.end:
        text = episode.trouble.replace("_", " ")
        cv2.putText(canvas, text, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, NO, 2, cv2.LINE_AA)
    words = "permitted" if permitted else "not permitted"
    return with_caption(
        canvas, f"seed {episode.seed}   {seconds:5.1f} s   {phase}   motion {words}"
    )


# --- figures ----------------------------------------------------------------------------------


@rc_context(STYLE)
def _draw_cases(episodes: Sequence[Episode], path: Path) -> None:
    """All cases without trouble: paths, errors, times and stops."""
    figure = Figure(figsize=(7.2, 5.6), dpi=DPI, layout="constrained")
    (ways, errors), (times, stops) = figure.subplots(2, 2)
    for episode in episodes:
        color = "tab:blue" if episode.reached else "tab:red"
        ways.plot(*episode.path_mm.T, color="0.8", lw=0.8, zorder=1)
        ways.plot(*episode.true_tip.values.T, color=color, lw=0.7, zorder=2)
        ways.plot(*episode.path_mm[-1], "o", ms=3, mfc="none", color="0.3", zorder=3)
    side = SIZE * PIXEL_MM
    ways.set(xlim=(0, side), ylim=(side, 0), aspect="equal", xlabel="x (mm)", ylabel="y (mm)")
    ways.set_title("(a) Ways of the true tip; grey: planned")
    every = np.concatenate([e.path_errors_mm() for e in episodes] or [np.zeros(0)])
    tips = np.concatenate([e.tip_errors_mm() for e in episodes] or [np.zeros(0)])
    for values, name in ((every, "true tip to path"), (tips, "seen tip to true tip")):
        if len(values):
            errors.ecdf(values, label=f"{name}, p95 {np.percentile(values, 95):.1f} mm")
    errors.set(xlabel="distance (mm)", ylabel="share of frames", title="(b) Errors, cumulative")
    errors.set_xscale("symlog", linthresh=1.0)
    errors.set_xlim(left=0)
    errors.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18))  # covers no curve
    _plot_bars(times, episodes, [e.seconds for e in episodes], "time (s)", "(c) Time")
    counts = [float(len(e.withdrawals)) for e in episodes]
    _plot_bars(stops, episodes, counts, "stops", "(d) Permission withdrawn")
    figure.savefig(path)


def _plot_bars(
    axes: Axes, episodes: Sequence[Episode], values: Sequence[float], label: str, title: str
) -> None:
    colors = ["tab:blue" if episode.reached else "tab:red" for episode in episodes]
    axes.bar(range(len(values)), values, color=colors)
    axes.set_xticks(range(len(values)), [str(e.seed) for e in episodes], fontsize=5)
    axes.set(xlabel="seed; red: target not reached", ylabel=label, title=title)
    axes.set_ylim(bottom=0)


@rc_context(STYLE)
def _draw_troubles(episodes: Sequence[Episode], path: Path) -> None:
    """Of one case for each trouble: depth, permission and trouble over time."""
    figure = Figure(figsize=(7.2, 1.3 * len(episodes) + 0.5), dpi=DPI, layout="constrained")
    for axes, episode in zip(
        figure.subplots(len(episodes), squeeze=False)[:, 0], episodes, strict=True
    ):
        for span in episode.permitted:
            axes.axvspan(span.begin, span.end, color="tab:green", alpha=0.18, lw=0)
        if episode.trouble_span is not None:
            trouble = episode.trouble_span
            axes.axvspan(trouble.begin, trouble.end, color="tab:red", alpha=0.25, lw=0)
        drive = episode.drive
        axes.plot(drive.seconds, drive.values[:, 0] - drive.values[:1, 0], "k-", lw=0.9)
        late = after_permission_s(drive, episode.permitted) > 0
        at = drive.seconds[moving(drive)][late]
        axes.plot(at, np.zeros_like(at), "|", color="crimson", ms=6)
        axes.set(ylabel="fed (mm)", xlim=(0, max(episode.seconds, 1.0)))
        axes.set_title(f"{episode.trouble.replace('_', ' ')}, seed {episode.seed}")
    axes.set_xlabel("time (s); green: motion permitted, red: trouble, ticks: moved after its end")
    figure.savefig(path)
