# SPDX-License-Identifier: Apache-2.0
"""A recording's images through any model, and what would have been told differently.

The recording holds what segmentation_node told of each image: its mask, the tips that it vouched
for, its state; messages are matched by the stamp of their image. Distances are pixels of the
input.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames import Frame, to_grey8
from fedefm_core.frames.bag import (
    RecordedMessage,
    decode_message,
    image_topics,
    read_messages,
    recorded_topics,
)
from fedefm_core.perception import Instrument, Perception, Segmenter, TrackingState, draw_overlay
from fedefm_core.perception.types import INSTRUMENT_KINDS, LabelMap

Image = npt.NDArray[np.uint8]
Point = tuple[float, float]

MISSING_PX = 100.0  # what a tip that only one of them tells counts for, to find the worst frames
LABELS_PX = 10.0  # what labels count for if all of them changed, to find the worst frames
_WAITING = 64  # images whose mask may still come


@dataclass(frozen=True)
class Topics:
    """Full names: of the images, and of what was told of them."""

    image: str
    mask: str
    state: str
    tips: Mapping[str, str]  # by kind


@dataclass(frozen=True)
class Told:
    """What was told of one image. label_map: None when no mask came."""

    label_map: LabelMap | None = None
    tips_px: Mapping[str, Point] = field(default_factory=dict)
    state: str = ""


@dataclass(frozen=True)
class Difference:
    """One image, as recorded and as replayed.

    seconds: from the first image. changed: share of pixels with another label; None when no mask
    was recorded. recorded_tips, replayed_tips: by kind. state: TRACKING or LOST.
    """

    stamp_ns: int
    seconds: float
    changed: float | None
    recorded_tips: Mapping[str, Point]
    replayed_tips: Mapping[str, Point]
    recorded_state: str
    replayed_state: str

    def moved_px(self, kind: str) -> float | None:
        """From the recorded to the replayed tip; None unless both were told."""
        if kind not in self.recorded_tips or kind not in self.replayed_tips:
            return None
        return math.dist(self.recorded_tips[kind], self.replayed_tips[kind])

    @property
    def badness(self) -> float:
        """How different: pixels that tips moved, or appeared; a share of labels counts little."""
        total = LABELS_PX * (self.changed or 0.0)
        for kind in INSTRUMENT_KINDS:
            if (kind in self.recorded_tips) != (kind in self.replayed_tips):
                total += MISSING_PX
            total += self.moved_px(kind) or 0.0
        return total


@dataclass(frozen=True)
class Worst:
    """A frame among the worst, drawn: (H, W, 3) BGR as recorded and as replayed."""

    difference: Difference
    recorded: Image
    replayed: Image


@dataclass
class Replay:
    """All differences, in order, and the worst frames, worst first."""

    differences: list[Difference] = field(default_factory=list)
    worst: list[Worst] = field(default_factory=list)


def choose_topics(path: Path, image: str | None = None) -> Topics:
    """Find the images of a recording, and what was told of them in the same namespace.

    image: full name of their topic; None: the only one, masks and overlays left out. Raises
    FrameError, listing the topics, when that is not clear.
    """
    there = recorded_topics(path)
    masks = [t for t in image_topics(there) if t.rpartition("/")[2] in ("mask", "overlay")]
    images = [t for t in image_topics(there) if t not in masks]
    if image is None and len(images) == 1:
        image = images[0]
    if image not in images:
        listed = ", ".join(images) or "none"
        wanted = (
            "must have one topic of images" if image is None else f"has no images on '{image}'"
        )
        raise FrameError(f"{path} {wanted}; its topics of images: {listed}")
    namespaces = sorted({t.rpartition("/")[0] for t in there if t.endswith("/mask")})
    own = [n for n in namespaces if image.startswith(f"{n}/")] or namespaces
    if len(own) != 1:
        raise FrameError(
            f"{path} must hold the mask that was told of its images, in one namespace; "
            f"its namespaces with a mask: {', '.join(own) or 'none'}"
        )
    prefix = own[0]
    tips = {kind: f"{prefix}/{kind}/tip_pixel" for kind in INSTRUMENT_KINDS}
    return Topics(image, f"{prefix}/mask", f"{prefix}/state", tips)


def told_without_masks(path: Path, topics: Topics) -> dict[int, Told]:
    """Tips and states of a recording, by the stamp of their image in nanoseconds."""
    tips: dict[int, dict[str, Point]] = {}
    states: dict[int, str] = {}
    kinds = {topic: kind for kind, topic in topics.tips.items()}
    for message in read_messages(path, [*kinds, topics.state]):
        if message.topic == topics.state:
            stamp_ns, state = _state(message.data)
            if stamp_ns is not None:
                states.setdefault(stamp_ns, state)  # later ones are beats
            continue
        point = message.data.point
        of_frame = tips.setdefault(message.stamp_ns, {})
        of_frame[kinds[message.topic]] = (float(point.x), float(point.y))
    stamps = tips.keys() | states.keys()
    return {ns: Told(None, tips.get(ns, {}), states.get(ns, "")) for ns in stamps}


def replay(
    path: Path, segmenter: Segmenter, topics: Topics, result: Replay, keep: int = 6
) -> Iterator[int]:
    """Process the images in order, into result, yielding after each its stamp.

    keep: worst frames. Raises FrameError for an image that cannot be read.
    """
    told = told_without_masks(path, topics)
    heap = _Heap(keep)
    waiting: dict[int, tuple[Frame, Perception]] = {}
    first_ns: int | None = None

    def compare(stamp_ns: int, label_map: LabelMap | None) -> None:
        frame, perception = waiting.pop(stamp_ns)
        known = told.get(stamp_ns, Told())
        recorded = Told(label_map, known.tips_px, known.state)
        seconds = (stamp_ns - (first_ns or 0)) * 1e-9
        difference = difference_of(stamp_ns, seconds, recorded, perception)
        result.differences.append(difference)
        heap.offer(difference, frame, recorded, perception)

    for message in read_messages(path, [topics.image, topics.mask]):
        stamp_ns = message.stamp_ns
        if message.topic == topics.mask:
            if stamp_ns in waiting:
                compare(stamp_ns, _labels(message))
            continue
        first_ns = stamp_ns if first_ns is None else first_ns
        frame = Frame(decode_message(message), stamp_ns)
        waiting[stamp_ns] = frame, segmenter.process(frame)
        if len(waiting) > _WAITING:
            compare(min(waiting), None)
        yield stamp_ns
    for left_ns in sorted(waiting):
        compare(left_ns, None)
    result.differences.sort(key=lambda one: one.stamp_ns)
    result.worst = heap.drawn()


def difference_of(
    stamp_ns: int, seconds: float, recorded: Told, perception: Perception
) -> Difference:
    """What differs between what was told of an image and what is perceived in it now.

    Raises FrameError when the recorded mask is of another size than the image.
    """
    changed = None
    if recorded.label_map is not None:
        if recorded.label_map.shape != perception.label_map.shape:
            raise FrameError(
                f"the mask of an image of {perception.label_map.shape} pixels was recorded with "
                f"{recorded.label_map.shape}"
            )
        changed = float(np.mean(recorded.label_map != perception.label_map))
    tips = {
        kind: (float(found.tip_px[0]), float(found.tip_px[1]))
        for kind, found in perception.tracked.items()
        if found.tip_px is not None
    }
    state = perception.state.value
    return Difference(stamp_ns, seconds, changed, recorded.tips_px, tips, recorded.state, state)


def _state(message: Any) -> tuple[int | None, str]:
    values = {pair.key: pair.value for status in message.status for pair in status.values}
    stamp = values.get("frame_stamp_ns", "")
    return (int(stamp) if stamp.isdecimal() else None), values.get("state", "")


def _labels(message: RecordedMessage) -> LabelMap:
    return np.asarray(decode_message(message), np.uint8)


class _Heap:
    """The worst frames so far; only those that get in are drawn."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._items: list[tuple[float, int, Worst]] = []

    def offer(
        self, difference: Difference, frame: Frame, recorded: Told, perception: Perception
    ) -> None:
        badness = difference.badness
        full = len(self._items) >= self._keep
        if badness <= 0 or (full and badness <= self._items[0][0]) or not self._keep:
            return
        grey = to_grey8(frame)
        before = draw_overlay(grey, _perception(recorded, perception))
        worst = Worst(difference, before, draw_overlay(grey, perception))
        item = (badness, -difference.stamp_ns, worst)
        (heapq.heapreplace if full else heapq.heappush)(self._items, item)

    def drawn(self) -> list[Worst]:
        return [worst for _, _, worst in sorted(self._items, reverse=True)]


def _perception(told: Told, replayed: Perception) -> Perception:
    """What was told, as far as it can be drawn."""
    found = {
        kind: Instrument(
            kind, np.zeros((0, 2)), np.array(tip), None, None, float("nan"), float("nan")
        )
        for kind, tip in told.tips_px.items()
    }
    empty = np.zeros(replayed.label_map.shape, np.uint8)
    return Perception(
        replayed.stamp_ns,
        empty if told.label_map is None else told.label_map,
        tuple(found.values()),
        found,
        TrackingState.TRACKING if told.state == "TRACKING" else TrackingState.LOST,
    )


def summarise(differences: Sequence[Difference]) -> dict[str, Any]:
    """Counts and quantiles over all images; None where there is nothing to count."""
    changed = [d.changed for d in differences if d.changed is not None]
    return {
        "images": len(differences),
        "images_with_a_recorded_mask": len(changed),
        "changed_pixels_share": _quantiles(changed),
        "state_differs": sum(
            bool(d.recorded_state) and d.recorded_state != d.replayed_state for d in differences
        ),
        "tips": {kind: _tips(differences, kind) for kind in INSTRUMENT_KINDS},
    }


def _tips(differences: Sequence[Difference], kind: str) -> dict[str, Any]:
    recorded = [kind in d.recorded_tips for d in differences]
    replayed = [kind in d.replayed_tips for d in differences]
    pairs = list(zip(recorded, replayed, strict=True))
    moved = [d.moved_px(kind) for d in differences]
    return {
        "both": sum(a and b for a, b in pairs),
        "only_recorded": sum(a and not b for a, b in pairs),
        "only_replayed": sum(b and not a for a, b in pairs),
        "neither": sum(not a and not b for a, b in pairs),
        "moved_px": _quantiles([value for value in moved if value is not None]),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95, largest = np.percentile(values, [50, 95, 100])
    return {"p50": float(p50), "p95": float(p95), "max": float(largest)}
