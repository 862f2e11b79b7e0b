# SPDX-License-Identifier: Apache-2.0
"""The pictures of a demo run, drawn after it: overlay video, contact sheet, plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedefm_core.errors import OutputError
from fedefm_core.frames import to_grey8
from fedefm_core.perception.overlay import COLORS, draw_overlay, plot_color
from fedefm_core.perception.types import INSTRUMENT_KINDS, Perception
from fedefm_ros.demo_frames import frame_record, perceived, read_again
from fedefm_ros.demo_report import FrameRecord, SentFrame, percentiles, tip_latencies
from fedefm_ros.playback import PlaybackSource
from fedefm_ros.recorder import Recording

Image = npt.NDArray[np.uint8]
TRUTH_COLOR = (255, 255, 255)  # BGR
SHEET_COLUMNS, SHEET_ROWS = 4, 3
PANEL_INCHES = 2.2
DPI = 200
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 6,
    "legend.frameon": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}
CAPTION_HEIGHT = 28
# MPEG-4 part 2: what every OpenCV wheel can write. VLC, mpv and ffplay play it, browsers do not.
VIDEO_CODEC = "mp4v"


def draw_run(
    source: PlaybackSource, sent: Sequence[SentFrame], recording: Recording, folder: Path
) -> list[FrameRecord]:
    """Draw overlay.mp4, contact_sheet.png and tip_and_latency.png; return each frame's figures.

    Raises FrameError when the source changed since it was played, OutputError when the video
    cannot be written.
    """
    records: list[FrameRecord] = []
    panels: dict[int, Image] = {}
    chosen = _spread([n for n, s in enumerate(sent) if s.stamp_ns in recording.masks], len(sent))
    grey = np.zeros((1, 1), np.uint8)
    with opened_video(folder / "overlay.mp4", source.rate_hz) as write:
        for number, (line, played) in enumerate(read_again(source, sent)):
            record = frame_record(line, played, recording)
            grey = to_grey8(played.frame)
            panel = draw_frame(grey, perceived(line, played, recording), record)
            write(with_caption(panel, caption(number, record)))
            records.append(record)
            if number in chosen:
                panels[number] = panel
    draw_contact_sheet(panels, records, folder / "contact_sheet.png")
    draw_tip_and_latency(grey, records, folder / "tip_and_latency.png")
    return records


def _spread(answered: Sequence[int], count: int) -> set[int]:
    """Numbers of the frames for the contact sheet, from first to last; answered ones if any."""
    numbers = answered or range(count)
    at = np.linspace(0, len(numbers) - 1, SHEET_COLUMNS * SHEET_ROWS).round().astype(int)
    return {numbers[i] for i in at}


def draw_frame(grey: Image, perception: Perception, record: FrameRecord) -> Image:
    """The overlay, with a cross on each true tip where the truth is known.

    A frame that was not answered has no overlay at all, for there is none.
    """
    canvas = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    if record.mask_ms is not None:
        canvas = draw_overlay(grey, perception)
    for tip in perception.tracked.values():
        if tip.heading_rad is None and tip.tip_px is not None:  # no spacing: no pose, no arrow
            center = (round(float(tip.tip_px[0])), round(float(tip.tip_px[1])))
            cv2.circle(canvas, center, 6, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.circle(canvas, center, 6, COLORS[tip.kind], 1, cv2.LINE_AA)
    for tips in (record.true_tips_px or {}).values():
        for x, y in tips:
            center = (round(x), round(y))
            cv2.drawMarker(canvas, center, (0, 0, 0), cv2.MARKER_CROSS, 13, 3)
            cv2.drawMarker(canvas, center, TRUTH_COLOR, cv2.MARKER_CROSS, 11, 1)
    return canvas


def caption(number: int, record: FrameRecord) -> str:
    """What to write below frame number: state, latency and, where known, the tip errors."""
    parts = [f"frame {number + 1}", record.state or "no answer"]
    parts += [f"{kind} tip {ms:.1f} ms" for kind, ms in record.tip_ms.items()]
    errors = {kind: record.error_px(kind) for kind in INSTRUMENT_KINDS}
    parts += [f"{kind} error {e:.1f} px" for kind, e in errors.items() if e is not None]
    return "   ".join(parts)


def with_caption(panel: Image, text: str) -> Image:
    """The panel with text on a dark strip below it; the type fits the width."""
    strip = np.full((CAPTION_HEIGHT, panel.shape[1], 3), 24, np.uint8)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    scale = 0.42 * min(1.0, (panel.shape[1] - 12) / max(width, 1))
    origin = (6, CAPTION_HEIGHT - 9)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(strip, text, origin, font, scale, (230, 230, 230), 1, cv2.LINE_AA)
    return np.vstack([panel, strip])


@contextmanager
def opened_video(path: Path, rate_hz: float) -> Iterator[Callable[[Image], None]]:
    """A function that appends a picture to the video; the first one sets its size."""
    writer = cv2.VideoWriter()

    def write(picture: Image) -> None:
        if not writer.isOpened():
            size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            sizes.append(size)
            if not writer.open(str(path), cv2.VideoWriter.fourcc(*VIDEO_CODEC), rate_hz, size):
                raise OutputError(f"OpenCV cannot write the video {path} ({VIDEO_CODEC}).")
        writer.write(fitted(picture, sizes[0]))

    sizes: list[tuple[int, int]] = []
    try:
        yield write
    finally:
        writer.release()


def fitted(picture: Image, size: tuple[int, int]) -> Image:
    """The picture scaled to fit size (width, height), on black; unchanged when it fits."""
    width, height = size
    if picture.shape[:2] == (height, width):
        return picture
    factor = min(width / picture.shape[1], height / picture.shape[0])
    scaled = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: scaled.shape[0], : scaled.shape[1]] = scaled[:height, :width]
    return canvas


@rc_context(STYLE)
def draw_contact_sheet(
    panels: Mapping[int, Image], records: Sequence[FrameRecord], path: Path
) -> None:
    """Frames spread over the run, each with its number and, where known, its tip errors."""
    height, width = next(iter(panels.values())).shape[:2]
    row_inches = PANEL_INCHES * height / width + 0.2
    figure = _figure(PANEL_INCHES * SHEET_COLUMNS, row_inches * SHEET_ROWS + 0.25)
    grid = figure.subplots(SHEET_ROWS, SHEET_COLUMNS).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, (number, panel) in zip(grid, sorted(panels.items()), strict=False):
        axes.imshow(panel[:, :, ::-1])
        axes.set_title(f"frame {number + 1}", fontsize=6, pad=2)
        axes.set_title(_outcome(records[number]), fontsize=6, pad=2, loc="right")
    figure.legend(handles=_legend_handles(records), loc="outside lower center", ncols=4)
    figure.savefig(path)


def _outcome(record: FrameRecord) -> str:
    errors = {kind: record.error_px(kind) for kind in INSTRUMENT_KINDS}
    known = [f"{kind} {error:.1f}" for kind, error in errors.items() if error is not None]
    return "error: " + ", ".join(known) + " px" if known else record.state or "no answer"


@rc_context(STYLE)
def draw_tip_and_latency(grey: Image, records: Sequence[FrameRecord], path: Path) -> None:
    """Tip path over grey, tip position or error over time, and latency over time and by share."""
    figure = _figure(7.2, 5.6)
    (path_axes, tip_axes), (time_axes, share_axes) = figure.subplots(2, 2)
    start = records[0].stamp_ns
    seconds = np.array([(record.stamp_ns - start) / 1e9 for record in records])
    _plot_path(path_axes, grey, records)
    if records[0].true_tips_px is None:
        _plot_position(tip_axes, seconds, records)
    else:
        _plot_error(tip_axes, seconds, records)
    _plot_latency(time_axes, seconds, records)
    _plot_share(share_axes, records)
    figure.savefig(path)


def _plot_path(axes: Axes, grey: Image, records: Sequence[FrameRecord]) -> None:
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    for kind in INSTRUMENT_KINDS:
        true = [record.true_tips_px[kind] for record in records if record.true_tips_px]
        if any(true):
            points = np.array([tip for tips in true for tip in tips])
            axes.plot(*points.T, ".", ms=2, color="white", zorder=2)
        tips = np.array([r.tips_px[kind] for r in records if kind in r.tips_px]).reshape(-1, 2)
        axes.plot(*tips.T, "o", ms=2.2, mfc="none", mew=0.5, color=plot_color(kind), zorder=3)
    axes.set(xlabel="x (pixels)", ylabel="y (pixels)", title="(a) Tips, on the last frame")
    handles = [Line2D([], [], ls="", marker="o", mfc="none", ms=3, color="0.4", label="reported")]
    if records[0].true_tips_px is not None:
        handles.append(Line2D([], [], ls="", marker=".", ms=3, color="white", label="true"))
    axes.legend(handles=handles, facecolor="0.75")


def _plot_error(axes: Axes, seconds: Any, records: Sequence[FrameRecord]) -> None:
    for kind in INSTRUMENT_KINDS:
        errors = np.array([r.error_px(kind) for r in records], dtype=np.float64)
        if not np.isnan(errors).all():
            axes.plot(seconds, errors, ".", ms=2.5, color=plot_color(kind), label=kind)
    axes.set(xlabel="time (s)", ylabel="tip error (pixels)", title="(b) Distance to the true tip")
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(bottom=0)
    _add_legend(axes)


def _plot_position(axes: Axes, seconds: Any, records: Sequence[FrameRecord]) -> None:
    for kind in INSTRUMENT_KINDS:
        tips = np.array([r.tips_px.get(kind, (np.nan, np.nan)) for r in records])
        if not np.isnan(tips).all():
            axes.plot(seconds, tips[:, 0], "-", lw=0.8, color=plot_color(kind), label=f"{kind} x")
            axes.plot(seconds, tips[:, 1], ":", lw=1.0, color=plot_color(kind), label=f"{kind} y")
    axes.set(xlabel="time (s)", ylabel="tip (pixels)", title="(b) Position of the tips")
    _add_legend(axes)


def _plot_latency(axes: Axes, seconds: Any, records: Sequence[FrameRecord]) -> None:
    for kind in INSTRUMENT_KINDS:
        values = np.array([r.tip_ms.get(kind, np.nan) for r in records])
        if not np.isnan(values).all():
            axes.plot(seconds, values, ".", ms=2.5, color=plot_color(kind), label=f"{kind} tip")
    masks = np.array([np.nan if r.mask_ms is None else r.mask_ms for r in records])
    axes.plot(seconds, masks, ".", ms=1.5, color="0.6", label="mask", zorder=1)
    lost = seconds[np.isnan(masks)]
    axes.plot(lost, np.zeros_like(lost), "|", ms=8, color="crimson", label=f"lost ({len(lost)})")
    axes.set(xlabel="time (s)", ylabel="latency (ms)", title="(c) From image stamp to arrival")
    axes.set_ylim(0, 1.3 * max(axes.get_ylim()[1], 1.0))  # room for the legend
    axes.legend(ncols=2, loc="upper left")


def _plot_share(axes: Axes, records: Sequence[FrameRecord]) -> None:
    series = {f"{kind} tip": tip_latencies(records, kind) for kind in INSTRUMENT_KINDS}
    for (name, values), kind in zip(series.items(), INSTRUMENT_KINDS, strict=True):
        if values:
            summary = percentiles(values)
            label = f"{name}: p50 {summary['p50']:.1f}, p99 {summary['p99']:.1f} ms"
            axes.ecdf(values, color=plot_color(kind), label=label)
    axes.set(xlabel="latency (ms)", ylabel="share of frames", title="(d) Latency, cumulative")
    axes.set_xlim(left=0)
    _add_legend(axes)


def _add_legend(axes: Axes) -> None:
    """A legend, unless nothing was plotted."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _legend_handles(records: Sequence[FrameRecord]) -> list[Any]:
    handles: list[Any] = [Patch(color=plot_color(kind), label=kind) for kind in INSTRUMENT_KINDS]
    handles.append(Line2D([], [], ls="", marker="o", mfc="none", color="black", label="tip"))
    if records[0].true_tips_px is not None:
        handles.append(Line2D([], [], ls="", marker="+", color="black", label="true tip"))
    return handles


def _figure(width: float, height: float) -> Figure:
    """A figure that needs no display; constrained, so that nothing overlaps."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")
