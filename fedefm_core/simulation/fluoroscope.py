# SPDX-License-Identifier: Apache-2.0
"""X-ray frames of a view that does not move, fast: only what moves in it is drawn anew.

The same image chain as detector.py, taken apart: the anatomy is exposed once, without noise; for
each frame the shadow of the instruments falls on it, it is blurred where they are, and noise and
the display's curve come last. The window is that of the empty view, as with locked exposure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.detector import Detector, blur, expose, shaped_noise
from fedefm_core.simulation.instruments import Design, draw_instruments

Rng = np.random.Generator
Image = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

_NOISES = 8  # fields of noise, of which each frame shows one, shifted and turned over
_COUNTLESS = 1e12  # photons
_LEAST_SIGNAL = 1e-4


@dataclass(frozen=True)
class _Window:
    """Grey levels: middle of the view's log signal, and what a unit of it is worth."""

    middle: float
    gain: float


class Fluoroscope:
    """Frames of one view, (H, W) uint8, from one detector."""

    def __init__(self, anatomy: Image, detector: Detector, rng: Rng) -> None:
        """anatomy: (H, W) line integral of attenuation. The detector's size is the image's."""
        self._detector = detector
        self._anatomy = anatomy
        quiet = replace(detector, photons=_COUNTLESS, electronic_noise=0.0)
        self._signal = expose(anatomy, quiet, rng)
        logarithm = np.log(self._signal)
        low, middle, high = np.percentile(logarithm, (2.0, 50.0, 98.0))
        spread = max(float(high - low) / 4, 0.1)
        self._window = _Window(float(middle), 0.8 * detector.contrast / spread)
        self._noises = [
            shaped_noise(anatomy.shape, detector, rng).astype(np.float32) for _ in range(_NOISES)
        ]

    def frame(
        self,
        designs: Sequence[Design],
        rng: Rng,
        noise: float = 1.0,
        extra: Image | None = None,
    ) -> Pixels:
        """Expose the view with instruments in it.

        noise: times the detector's. extra: (H, W) attenuation of what else is in the beam.
        """
        shadow = np.zeros_like(self._anatomy)
        draw_instruments(shadow, designs)
        if extra is not None:
            shadow += extra
        shadow = blur(shadow, self._detector.blur_px)
        signal = self._signal * _primary_share(shadow, self._detector.scatter_fraction)
        photons = self._detector.photons / float(np.median(self._signal[::8, ::8]))
        deviation = cv2.sqrt(signal * np.float32(1 / photons))
        signal += deviation * np.float32(noise) * self._noise(rng)
        np.maximum(signal, np.float32(_LEAST_SIGNAL), out=signal)
        picture = cv2.log(signal)
        picture -= np.float32(self._window.middle)
        picture *= np.float32(self._window.gain)
        picture += np.float32(self._detector.brightness)
        np.clip(picture, 0, 1, out=picture)
        picture = cv2.pow(picture, self._detector.gamma)
        return np.asarray(cv2.convertScaleAbs(picture, alpha=255.0), np.uint8)

    def _noise(self, rng: Rng) -> Image:
        """One of the fields, elsewhere: no two frames that follow each other show the same."""
        height, width = self._anatomy.shape
        field = self._noises[int(rng.integers(_NOISES))]
        if rng.random() < 0.5:
            field = field[::-1]
        shift = int(rng.integers(height)), int(rng.integers(width))
        return np.roll(field, shift, axis=(0, 1))


def _primary_share(shadow: Image, scatter_fraction: float) -> Image:
    """What is left of the signal: a thin shadow takes primary photons, and scatter fills it up."""
    share = cv2.exp(-shadow)
    share += np.float32(scatter_fraction)
    share *= np.float32(1 / (1 + scatter_fraction))
    return np.asarray(share, np.float32)
