# SPDX-License-Identifier: Apache-2.0
"""What the console does to a picture: round field, collimator, burned-in text, JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Image = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def exposed_field(rng: Rng, kind: str, size: int) -> Image | None:
    """(size, size) in 0..1: 1 where X-rays reach the detector; None when all of it is exposed."""
    if kind == "simulation" or rng.random() < 0.6:
        return None
    field = np.zeros((size, size), np.float32)
    if rng.random() < 0.5:  # the round input window of an image intensifier
        center = (size - 1) / 2 + rng.normal(0, 0.01 * size, 2)
        radius = rng.uniform(0.49, 0.6) * size
        fixed = tuple(round(float(v) * 16) for v in center)
        cv2.circle(field, fixed, round(radius * 16), 1.0, -1, cv2.LINE_8, 4)
    else:
        x0, y0 = rng.uniform(0, 0.15, 2) * size
        x1, y1 = size - rng.uniform(0, 0.15, 2) * size
        field[int(y0) : int(y1), int(x0) : int(x1)] = 1.0
    soft = cv2.GaussianBlur(field, (0, 0), float(rng.uniform(0.5, 2.5)))
    return np.asarray(soft, np.float32)


def add_console(pixels: Pixels, kind: str, rng: Rng) -> Pixels:
    """Burned-in text and JPEG artefacts, each now and then; 8 bit only gets JPEG."""
    if kind != "simulation" and rng.random() < 0.15:
        _burn_text(pixels, rng)
    if pixels.dtype == np.uint8 and rng.random() < 0.25:
        quality = int(rng.integers(55, 95))
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
    return pixels


def _burn_text(pixels: Pixels, rng: Rng) -> None:
    size = len(pixels)
    stencil = np.zeros(pixels.shape, np.uint8)  # OpenCV writes on 8-bit images only
    for _ in range(int(rng.integers(1, 6))):
        letters = "".join(rng.choice(list("ABCDEFGHKLMNRSTUVXYZ0123456789 :./"), 12))
        x = int(rng.choice([0.02, 0.7]) * size)
        y = int(rng.choice([rng.uniform(0.03, 0.2), rng.uniform(0.85, 0.98)]) * size)
        height = float(rng.uniform(0.3, 0.6)) * size / 512
        cv2.putText(stencil, letters, (x, y), cv2.FONT_HERSHEY_SIMPLEX, height, 255, 1)
    top = 255 if pixels.dtype == np.uint8 else int(pixels.max())
    opacity = stencil / np.float32(255)
    pixels[:] = np.round(pixels + (top - pixels.astype(np.float32)) * opacity)
