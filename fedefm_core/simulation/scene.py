# SPDX-License-Identifier: Apache-2.0
"""Scenes put together: anatomy, instruments, detector and console to one frame with its truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import SimulationError
from fedefm_core.frames.frame import Frame, Spacing
from fedefm_core.perception.types import UNKNOWN
from fedefm_core.simulation.anatomy import background
from fedefm_core.simulation.backgrounds import random_picture, random_projection
from fedefm_core.simulation.console import add_console, exposed_field
from fedefm_core.simulation.detector import (
    Detector,
    blur,
    display,
    expose,
    quantise,
    random_detector,
)
from fedefm_core.simulation.drawing import Mask
from fedefm_core.simulation.instruments import (
    Design,
    draw_instruments,
    label_instruments,
    random_designs,
    truth_of,
)
from fedefm_core.simulation.settings import (
    BackgroundSettings,
    IngredientSettings,
    SimulationSettings,
)
from fedefm_core.simulation.truth import KINDS, InstrumentTruth, SimulatedFrame
from fedefm_core.simulation.visibility import contrast_to_noise, shortfall

Rng = np.random.Generator
Image = npt.NDArray[np.float32]
STRENGTHENINGS = 2  # times that an instrument nobody could see is made denser and drawn again
_MAX_STRENGTHENING = 6.0  # at once
_COUNTLESS = 1e12  # photons: no noise
MOTION_MARGIN = 16  # pixels of a 512-pixel image that the anatomy may move


@dataclass(frozen=True)
class Photograph:
    """A real X-ray picture that takes the place of anatomy and detector.

    grey: (H, W) in 0..1. known: (H, W) True where no unlabelled instrument can be.
    gain: grey levels lost per unit of attenuation, relative to the grey level (Beer-Lambert on a
    linear display) by share linear, absolute (logarithmic display) by the rest.
    """

    grey: Image
    known: Mask
    gain: float
    linear: float
    blur_px: float
    noise: float


@dataclass(frozen=True)
class Scene:
    """Everything about one view that does not change from frame to frame.

    console_seed: of the console's graphics and artefacts; None: it adds none. photograph: replaces
    anatomy and detector. has_instruments: False for views that teach what is no instrument.
    """

    kind: str
    size: int
    bit_depth: int
    inverted: bool
    anatomy: Image
    field: Image | None
    detector: Detector
    console_seed: int | None
    photograph: Photograph | None = None
    has_instruments: bool = True

    @property
    def scale(self) -> float:
        """Pixels of this image for each pixel of a 512-pixel one."""
        return self.size / 512

    @property
    def seen(self) -> Mask:
        """(size, size) True where X-rays reach the detector: all that truth speaks of."""
        if self.field is None:
            return np.ones((self.size, self.size), dtype=bool)
        return self.field >= 0.5


def simulate_frame(
    seed: int,
    index: int,
    settings: SimulationSettings | None = None,
    kind: str | None = None,
) -> SimulatedFrame:
    """One random frame with its truth; equal (seed, index, settings, kind) give equal bytes.

    kind: one of KINDS, or None to draw it by settings.kind_weights.
    Raises SimulationError when kind is unknown.
    """
    settings = settings or SimulationSettings()
    rng = np.random.default_rng([seed, index])
    scene = random_scene(rng, settings, kind)
    empty_fraction = settings.empty_fraction if scene.has_instruments else 1.0
    designs = random_designs(rng, settings.size, scene.scale, empty_fraction)
    source = f"simulation seed {seed}"
    strengthen = settings.ingredients.strengthening
    return render(scene, designs, rng, index=index, source=source, strengthen=strengthen)


def random_scene(rng: Rng, settings: SimulationSettings, kind: str | None) -> Scene:
    """Draw anatomy, detector and console of a view; or a real image, by its share of all."""
    if kind is not None and kind not in KINDS:
        raise SimulationError(f"'kind' must be one of {', '.join(KINDS)} (got '{kind}')")
    real = _draw_background(rng, settings, kind)
    if kind is None:
        kind = real.kind if real else _draw_kind(rng, settings)
    scene = _procedural_scene(rng, settings, kind, real)
    if real is None or real.medium == "volume":
        return scene
    grey, known = random_picture(rng, real, settings.size)
    photograph = Photograph(
        grey=_regraded(rng, grey),
        known=known,
        gain=float(rng.uniform(0.25, 0.8)),
        linear=float(rng.uniform(0.3, 1.0)),
        blur_px=float(rng.uniform(0.4, 1.2)),
        noise=float(rng.choice([0.0, rng.uniform(0.0, 0.03)])),
    )
    return replace(scene, photograph=photograph, field=None, has_instruments=real.instruments)


def _procedural_scene(
    rng: Rng, settings: SimulationSettings, kind: str, real: BackgroundSettings | None
) -> Scene:
    """A scene of procedural anatomy, or of a projected volume.

    What the settings leave out is drawn and dropped: the random numbers after it stay the same.
    """
    ingredients = settings.ingredients
    size, scale = settings.size, settings.size / 512
    padded = size + 2 * round(MOTION_MARGIN * scale)
    if real is not None and real.medium == "picture":
        anatomy = np.zeros((padded, padded), np.float32)
    elif real is not None:
        anatomy = random_projection(rng, real, padded)
    else:
        anatomy = background(rng, kind, padded, scale, ingredients)
    inverted = bool(rng.random() < settings.inverted_fraction)
    field = exposed_field(rng, kind, size)
    detector = _with_ingredients(random_detector(rng, kind), ingredients)
    console_seed = int(rng.integers(2**31))
    return Scene(
        kind=kind,
        size=size,
        bit_depth=settings.bit_depth,
        inverted=inverted,
        anatomy=anatomy,
        field=field if ingredients.console else None,
        detector=detector,
        console_seed=console_seed if ingredients.console else None,
        has_instruments=real is None or real.instruments,
    )


def _with_ingredients(detector: Detector, ingredients: IngredientSettings) -> Detector:
    """The detector, or one that only counts: its display curve stays."""
    if not ingredients.native_sizes:
        detector = replace(detector, native_size=None)
    if ingredients.detector:
        return detector
    return replace(
        detector,
        photons=_COUNTLESS,
        electronic_noise=0.0,
        scatter_fraction=0.0,
        glare_fraction=0.0,
        blur_px=0.0,
        motion_px=0.0,
        line_noise=0.0,
        heel=0.0,
        vignetting=0.0,
        ghost=0.0,
        defects=0,
    )


def strengthened(scene: Scene, designs: Sequence[Design], picture: Image) -> list[Design]:
    """The designs, those denser that a person could not see in the picture."""
    result = []
    for design in designs:
        lacking = [
            shortfall(picture, truth.centerline_px, truth.width_px)
            for truth in truth_of(design, scene.seen)
        ]
        factor = min(min(lacking, default=1.0), _MAX_STRENGTHENING)
        result.append(
            replace(design, strength=design.strength * factor * 1.1) if factor > 1 else design
        )
    return result


def _with_contrast(truth: InstrumentTruth, picture: Image) -> InstrumentTruth:
    contrast = contrast_to_noise(picture, truth.centerline_px, truth.width_px)
    return replace(truth, contrast_to_noise=contrast)


def _draw_background(
    rng: Rng, settings: SimulationSettings, kind: str | None
) -> BackgroundSettings | None:
    """One of the real sources by its share, or None; of the named kind only, if one is named."""
    if not settings.backgrounds:
        return None
    drawn = rng.random()
    for source in settings.backgrounds:
        drawn -= source.share
        if drawn < 0:
            return source if kind in (None, source.kind) else None
    return None


def _regraded(rng: Rng, grey: Image) -> Image:
    """(H, W) in 0..1 with another window and gamma, as another console would show it."""
    low, high = np.percentile(grey[::4, ::4], (1.0, 99.0))
    span = max(float(high - low), 0.1)
    bottom, top = rng.uniform(0.0, 0.3), rng.uniform(0.6, 1.0)
    picture = (grey - np.float32(low)) * np.float32((top - bottom) / span) + np.float32(bottom)
    if rng.random() < 0.3:
        picture = grey
    return np.asarray(
        cv2.pow(np.clip(picture, 0.0, 1.0), float(np.exp(rng.normal(0, 0.25)))), np.float32
    )


def render(
    scene: Scene,
    designs: Sequence[Design],
    rng: Rng,
    index: int = 0,
    source: str = "",
    strengthen: bool = False,
) -> SimulatedFrame:
    """Expose the scene with the instruments in it; rng draws the noise.

    strengthen: instruments that nobody could see in this scene are made denser until they show.
    """
    picture = expose_scene(scene, designs, rng)
    for _ in range(STRENGTHENINGS if strengthen else 0):
        stronger = strengthened(scene, designs, picture)
        if stronger == list(designs):
            break
        designs = stronger
        picture = expose_scene(scene, designs, rng)
    truths = [_with_contrast(truth, picture) for d in designs for truth in truth_of(d, scene.seen)]
    if scene.inverted:
        picture = 1.0 - picture
    if scene.field is not None:
        picture *= scene.field
    pixels = quantise(picture, scene.bit_depth)
    if scene.console_seed is not None:
        pixels = add_console(pixels, scene.kind, np.random.default_rng(scene.console_seed))
    labels = label_instruments(designs, scene.size, scene.scale)
    labels[~scene.seen] = 0
    if scene.photograph is not None:
        labels[~scene.photograph.known & (labels == 0)] = UNKNOWN
    spacing = Spacing(imager_pixel_spacing_mm=(0.3 / scene.scale, 0.3 / scene.scale))
    return SimulatedFrame(
        frame=Frame(pixels=pixels, spacing=spacing, source=source, index=index),
        label_map=labels,
        instruments=tuple(truths),
        kind=scene.kind,
    )


def expose_scene(scene: Scene, designs: Sequence[Design], rng: Rng) -> Image:
    """Picture in 0..1 before polarity, field and console."""
    if scene.photograph is not None:
        return _composed(scene.photograph, designs, rng)
    return _exposed(scene, designs, rng)


def _exposed(scene: Scene, designs: Sequence[Design], rng: Rng) -> Image:
    """Picture in 0..1 of the anatomy with the instruments in it."""
    margin = (len(scene.anatomy) - scene.size) // 2
    attenuation = scene.anatomy[margin : margin + scene.size, margin : margin + scene.size].copy()
    draw_instruments(attenuation, designs)
    return display(expose(attenuation, scene.detector, rng), scene.detector, scene.field)


def _composed(photograph: Photograph, designs: Sequence[Design], rng: Rng) -> Image:
    """Picture in 0..1: the real one, darker where the instruments are."""
    attenuation = np.zeros_like(photograph.grey)
    draw_instruments(attenuation, designs)
    attenuation = blur(attenuation, photograph.blur_px) * np.float32(photograph.gain)
    grey = photograph.grey
    linear = grey * cv2.exp(-attenuation)
    logarithmic = grey - np.float32(0.5) * attenuation * (grey > 0.03)
    picture = photograph.linear * linear + (1 - photograph.linear) * logarithmic
    if photograph.noise > 0:
        noise = np.asarray(rng.standard_normal(grey.shape, dtype=np.float32))
        picture = picture + blur(noise, 0.6) * np.float32(photograph.noise)
    return np.asarray(np.clip(picture, 0.0, 1.0), np.float32)


def _draw_kind(rng: Rng, settings: SimulationSettings) -> str:
    names = list(settings.kind_weights)
    weights = np.array([settings.kind_weights[name] for name in names])
    return str(names[int(rng.choice(len(names), p=weights / weights.sum()))])
