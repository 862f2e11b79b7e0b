# SPDX-License-Identifier: Apache-2.0
"""The insertion of instruments over time: they advance, the patient breathes, the heart beats.

Any frame can be drawn without the others, so that several processes can share a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import SimulationError
from fedefm_core.simulation.curves import arc_length
from fedefm_core.simulation.drawing import Mask
from fedefm_core.simulation.instruments import Design, random_designs, truth_of
from fedefm_core.simulation.scene import (
    MOTION_MARGIN,
    STRENGTHENINGS,
    Scene,
    expose_scene,
    random_scene,
    render,
    strengthened,
)
from fedefm_core.simulation.settings import SimulationSettings
from fedefm_core.simulation.truth import SimulatedFrame
from fedefm_core.simulation.vessels import random_vessels

Rng = np.random.Generator
Image = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

_STREAM = 2**31  # keeps the random numbers of sequences apart from those of still frames
_TIMES = (0.0, 0.35, 0.45, 0.6, 0.7, 1.0)  # of an insertion, as fractions of its duration
_DEPTHS = (0.3, 0.75, 0.75, 0.6, 0.6, 1.0)  # then, as fractions of the full travel
_EXCURSION = (0.3, 0.75, 0.0, 0.0, 0.6, 1.0)  # the same, when the wire leaves the view
_FIXED_PX = 60.0  # of a 512-pixel image: an instrument moves with the body from here on


@dataclass(frozen=True)
class Motion:
    """How the body moves: all lengths in pixels of the image, times in seconds.

    Breathing shifts everything along breathing_px (x, y); the heart moves what is within
    heart_radius of heart_center by heart_px (x, y). bolus: (begin, time to its peak).
    """

    breathing_hz: float
    breathing_px: tuple[float, float]
    heart_hz: float
    heart_px: tuple[float, float]
    heart_center: tuple[float, float]
    heart_radius: float
    bolus: tuple[float, float]

    @property
    def reach(self) -> float:
        """The furthest that anything moves, in pixels."""
        return float(np.hypot(*self.breathing_px) + np.hypot(*self.heart_px))

    def displacement(self, points: Points, time: float) -> Points:
        """(..., 2) how far the points, (..., 2) x, y, have moved at a time."""
        breath = np.sin(2 * np.pi * self.breathing_hz * time)
        # Systole is short: the beat is a narrow pulse, not a sine.
        beat = np.exp(4 * (np.cos(2 * np.pi * self.heart_hz * time) - 1))
        distance = np.linalg.norm(points - np.array(self.heart_center), axis=-1)
        near = np.exp(-0.5 * (distance / self.heart_radius) ** 2)[..., None]
        shift = breath * np.array(self.breathing_px) + beat * near * np.array(self.heart_px)
        return np.asarray(shift, np.float64)

    def filling(self, time: float) -> float:
        """0..1: contrast medium in the vessels at a time; a gamma variate curve."""
        begin, peak = self.bolus
        t = max(time - begin, 0.0) / peak
        return float((t * np.exp(1 - t)) ** 2)


@dataclass(frozen=True)
class Insertion:
    """A scene and its instruments, fully inserted.

    depths: of insertion at _TIMES, as fractions of the full travel. vessels: attenuation of the
    vessels when a bolus fills them, in the size of the scene's anatomy; None without one.
    """

    seed: int
    length: int
    frame_rate_hz: float
    scene: Scene
    designs: Sequence[Design]
    motion: Motion
    depths: tuple[float, ...]
    vessels: Image | None


def simulate_sequence(
    seed: int,
    length: int,
    settings: SimulationSettings | None = None,
    kind: str | None = None,
    frame_rate_hz: float = 30.0,
) -> Iterator[SimulatedFrame]:
    """An insertion: instruments advance from the border while the patient breathes.

    Yields length frames, stamped from 0 at frame_rate_hz. Deterministic in all arguments.
    Raises SimulationError when kind is unknown.
    """
    insertion = random_insertion(seed, length, settings, kind, frame_rate_hz)
    for index in range(length):
        yield insertion_frame(insertion, index)


def random_insertion(
    seed: int,
    length: int,
    settings: SimulationSettings | None = None,
    kind: str | None = None,
    frame_rate_hz: float = 30.0,
) -> Insertion:
    """Draw what simulate_sequence shows; same arguments, same errors."""
    settings = settings or SimulationSettings()
    rng = np.random.default_rng([seed, _STREAM])
    scene = random_scene(rng, settings, kind)
    motion = _random_motion(rng, scene, length / frame_rate_hz)
    designs = _insertable_designs(rng, scene, motion.reach) if scene.has_instruments else []
    for _ in range(STRENGTHENINGS if settings.ingredients.strengthening else 0):
        designs = strengthened(scene, designs, expose_scene(scene, designs, rng))
    vessels = random_vessels(rng, scene.kind, len(scene.anatomy), scene.scale)
    if not settings.ingredients.vessels:
        vessels = None
    leaves = rng.random() < settings.excursion_fraction
    depths = _EXCURSION if leaves else _DEPTHS
    return Insertion(seed, length, frame_rate_hz, scene, designs, motion, depths, vessels)


def insertion_frame(insertion: Insertion, index: int) -> SimulatedFrame:
    """Frame index of the insertion, 0 <= index < length, stamped index / frame_rate_hz."""
    time = index / insertion.frame_rate_hz
    depth = float(np.interp(index / max(insertion.length - 1, 1), _TIMES, insertion.depths))
    scene = _moved_scene(insertion, time)
    advanced = [_advance(design, depth) for design in insertion.designs]
    designs = [_moved_design(design, insertion, time) for design in advanced]
    rng = np.random.default_rng([insertion.seed, _STREAM, index])
    frame = render(scene, designs, rng, index=index)
    source = f"simulated insertion, seed {insertion.seed}"
    return replace(frame, frame=replace(frame.frame, stamp_ns=round(time * 1e9), source=source))


def _random_motion(rng: Rng, scene: Scene, duration: float) -> Motion:
    """Living bodies move; phantoms and renderings stand still."""
    alive = scene.kind in ("human", "animal")
    scale, size = scene.scale, scene.size
    breathing = rng.uniform(2, 9) * scale * np.array([rng.uniform(-0.4, 0.4), 1.0])
    heart = rng.uniform(0, 5) * scale * np.array([rng.uniform(-1, 1), rng.uniform(-1, 1)])
    return Motion(
        breathing_hz=float(rng.uniform(0.2, 0.35)),
        breathing_px=_pair(breathing * alive),
        heart_hz=float(rng.uniform(0.9, 1.7)),
        heart_px=_pair(heart * alive),
        heart_center=_pair(rng.uniform(0.25, 0.75, 2) * size),
        heart_radius=float(rng.uniform(0.12, 0.3) * size),
        bolus=(float(rng.uniform(0.1, 0.5) * duration), float(rng.uniform(0.4, 1.5))),
    )


def _pair(values: Points) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _insertable_designs(rng: Rng, scene: Scene, reach: float) -> list[Design]:
    """Instruments of which a guidewire travels far, with its tip in the view all the time."""
    margin = 2 * int(np.ceil(reach)) + 3
    inner = cv2.erode(
        scene.seen.astype(np.uint8), np.ones((margin, margin), np.uint8), borderValue=0
    )
    for _ in range(1000):
        designs = random_designs(rng, scene.size, scene.scale, empty_fraction=0.0)
        if any(_stays_in_view(design, scene, inner > 0) for design in designs):
            return designs
    raise SimulationError("No guidewire that stays inside the view was found in 1000 drawings.")


def _stays_in_view(design: Design, scene: Scene, inner: Mask) -> bool:
    if design.kind != "guidewire" or design.end - design.hidden_until < 0.5 * scene.size:
        return False
    depths = np.linspace(min(_DEPTHS), max(_DEPTHS), 24)
    truths = [truth_of(_advance(design, depth), inner) for depth in depths]
    return all(truth and truth[-1].tip_px is not None for truth in truths)


def _advance(design: Design, progress: float) -> Design:
    """The instrument inserted to a part of its travel: a guidewire slides out of its catheter."""
    if design.hidden_until > 0:
        travel = progress * (design.end - design.hidden_until)
        return replace(design, end=design.hidden_until + travel)
    if design.kind == "guidewire":
        return replace(design, end=progress * design.end)
    return design


def _moved_design(design: Design, insertion: Insertion, time: float) -> Design:
    """The instrument, carried along by the body; where it enters the view it is held."""
    shift = insertion.motion.displacement(design.path, time)
    free = np.clip(arc_length(design.path) / (_FIXED_PX * insertion.scene.scale), 0.0, 1.0)
    return replace(design, path=design.path + shift * free[:, None])


def _moved_scene(insertion: Insertion, time: float) -> Scene:
    """The scene with its anatomy, or its picture, moved and its vessels filled."""
    scene = insertion.scene
    if scene.photograph is not None:
        photograph = scene.photograph
        grey = _moved(photograph.grey, insertion.motion, time, 0.0)
        known = _moved(photograph.known.astype(np.float32), insertion.motion, time, 0.0) > 0.999
        return replace(scene, photograph=replace(photograph, grey=grey, known=known))
    anatomy = scene.anatomy
    filling = insertion.motion.filling(time)
    if insertion.vessels is not None and filling > 0.01:
        anatomy = anatomy + np.float32(filling) * insertion.vessels
    margin = round(MOTION_MARGIN * scene.scale)
    return replace(scene, anatomy=_moved(anatomy, insertion.motion, time, margin))


def _moved(image: Image, motion: Motion, time: float, margin: float) -> Image:
    """The image after the body moved; margin: pixels it has more on each side than the view."""
    size = len(image)
    centers = (np.arange(33) + 0.5) * size / 33 - 0.5  # where resizing takes coarse pixels to be
    coarse = np.stack(np.meshgrid(centers, centers), axis=-1) - margin
    shift = motion.displacement(coarse, time).astype(np.float32)
    if not shift.any():
        return image
    field = cv2.resize(shift, (size, size), interpolation=cv2.INTER_LINEAR)
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    moved = cv2.remap(
        image,
        xs - field[..., 0],
        ys - field[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.float32)
