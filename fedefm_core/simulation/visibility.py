# SPDX-License-Identifier: Apache-2.0
"""How well an instrument shows in its picture: contrast across the line over its own spread."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.curves import Curve

Image = npt.NDArray[np.float32]

_DETECTABLE = 5.0  # Rose: a pattern is seen reliably from a signal-to-noise ratio of about 5
_INDEPENDENT = 3.0  # pixels along the line for one independent sample of the noise
_LEAST_CONTRAST = 0.015  # of the grey range: less is lost in eight bits and on any screen


def contrast_profile(picture: Image, centerline: Curve, width: float) -> npt.NDArray[np.float64]:
    """(N,) darkness of each point of the line against both sides of it, in grey levels of 0..1.

    picture: (H, W) in 0..1. centerline: (N >= 2, 2) x, y. The line is read on its axis and, when
    it is wide, half way to its edges; the sides a width and 2 pixels away from the axis.
    """
    normal = _normals(centerline)
    near, far = 0.25 * width, width + 2.0
    line = np.mean([_read(picture, centerline + o * normal) for o in (-near, 0.0, near)], axis=0)
    sides = np.mean([_read(picture, centerline + o * normal) for o in (-far, far)], axis=0)
    return np.asarray(sides - line, np.float64)


def contrast_to_noise(picture: Image, centerline: Curve, width: float) -> float:
    """Mean over standard deviation of the contrast along the line; both polarities count alike."""
    profile = contrast_profile(picture, centerline, width)
    return float(abs(profile.mean()) / max(float(profile.std()), 1e-4))


def shortfall(picture: Image, centerline: Curve, width: float) -> float:
    """How many times more contrast the line needs to be seen by a person; 1 or less: it is seen.

    A line of N pixels is N / 3 independent looks at a contrast c in noise s, and is seen when
    c / s * sqrt(N / 3) reaches 5 (Rose, 'The sensitivity performance of the human eye on an
    absolute scale', JOSA 1948), over not more than 100 pixels, which is what an eye sums up.
    """
    profile = contrast_profile(picture, centerline, width)
    contrast = max(abs(float(profile.mean())), 1e-4)
    looks = max(min(len(profile), 100) / _INDEPENDENT, 1.0)
    needed = _DETECTABLE * float(profile.std()) / np.sqrt(looks)
    return float(max(needed, _LEAST_CONTRAST) / contrast)


def _normals(curve: Curve) -> Curve:
    along = np.gradient(curve, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def _read(picture: Image, points: Curve) -> npt.NDArray[np.float64]:
    """Bilinear values of the picture at (N, 2) x, y."""
    xy = points.astype(np.float32)[None]
    values = cv2.remap(
        picture, xy[..., 0], xy[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(values[0], np.float64)
