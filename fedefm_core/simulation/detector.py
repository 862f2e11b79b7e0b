# SPDX-License-Identifier: Apache-2.0
"""From attenuation to the picture on the console: Beer-Lambert, scatter, noise, display."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Detector:
    """How one image chain sees.

    photons: mean count a pixel without an object. scatter_fraction: scattered over primary.
    glare_fraction: veiling glare. blur_px: sigma of focal spot and detector blur. noise_blur_px:
    sigma that shapes the noise power spectrum. electronic_noise: in photons. gamma: of the
    display curve on a log scale. sharpening: strength of the console's edge enhancement.
    brightness: of the median pixel, 0..1. contrast: display range of a quarter of the signal's.
    """

    photons: float
    scatter_fraction: float
    glare_fraction: float
    blur_px: float
    noise_blur_px: float
    electronic_noise: float
    gamma: float
    sharpening: float
    brightness: float
    contrast: float


def random_detector(rng: np.random.Generator, kind: str) -> Detector:
    """Draw an image chain as it is usual for the kind of image."""
    quiet = {"human": 1.0, "animal": 1.5, "phantom": 4.0, "simulation": 60.0}[kind]
    scatter = {"human": 1.0, "animal": 0.7, "phantom": 0.4, "simulation": 0.0}[kind]
    return Detector(
        photons=float(np.exp(rng.uniform(np.log(1200), np.log(12000)))) * quiet,
        scatter_fraction=scatter * rng.uniform(0.2, 1.2),
        glare_fraction=scatter * rng.uniform(0.0, 0.1),
        blur_px=rng.uniform(0.35, 1.1),
        noise_blur_px=rng.uniform(0.0, 1.0),
        electronic_noise=rng.uniform(1.0, 10.0),
        gamma=rng.uniform(0.7, 1.4),
        sharpening=float(rng.choice([0.0, rng.uniform(0.3, 2.0)])),
        brightness=rng.uniform(0.32, 0.65),
        contrast=rng.uniform(0.1, 0.25),
    )


def expose(attenuation: Image, detector: Detector, rng: np.random.Generator) -> Image:
    """Detector signal in units of the unattenuated beam, with scatter, blur and noise.

    attenuation: (H, W) line integral of the attenuation coefficient, dimensionless (Beer-Lambert).
    """
    primary = blur(np.asarray(cv2.exp(-attenuation), np.float32), detector.blur_px, least=0.2)
    signal = primary + detector.scatter_fraction * wide_blur(primary, 0.08)
    signal += detector.glare_fraction * wide_blur(primary, 0.3)
    noise = np.asarray(rng.standard_normal(signal.shape, dtype=np.float32))
    if detector.noise_blur_px > 0.25:
        noise = blur(noise, detector.noise_blur_px)
        noise *= np.float32(1.0 / max(float(noise.std()), 1e-6))
    variance = np.maximum(signal, 1e-4) / detector.photons
    variance += (detector.electronic_noise / detector.photons) ** 2
    return np.asarray(np.maximum(signal + noise * np.sqrt(variance), 1e-4), np.float32)


def display(signal: Image, detector: Detector, field: Image | None = None) -> Image:
    """Console picture in 0..1: log scale, window from the image's own statistics, enhancement.

    field: (H, W) in 0..1, the part of the detector that is exposed; statistics use it alone.
    """
    logged = cv2.log(signal)
    seen = logged[::4, ::4] if field is None else logged[::4, ::4][field[::4, ::4] > 0.5]
    low, middle, high = np.percentile(seen, (2.0, 50.0, 98.0))
    spread = max(float(high - low) / 4, 0.05)
    picture = detector.brightness + (logged - float(middle)) * (detector.contrast / spread) * 0.8
    if detector.sharpening > 0:
        picture += detector.sharpening * (picture - cv2.GaussianBlur(picture, (0, 0), 2.0))
    return np.asarray(cv2.pow(np.clip(picture, 0.0, 1.0), detector.gamma), np.float32)


def blur(image: Image, sigma: float, least: float = 0.0) -> Image:
    """Gaussian blur; a sigma of least or less leaves the image as it is."""
    if sigma <= least:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def wide_blur(image: Image, relative_sigma: float) -> Image:
    """Blur with a sigma given as a fraction of the image side, on a small copy."""
    height, width = image.shape
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 64 * relative_sigma, borderType=cv2.BORDER_REPLICATE)
    full = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, np.float32)


def quantise(picture: Image, bit_depth: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """0..1 to integers of bit_depth bits."""
    top = (1 << bit_depth) - 1
    levels = np.round(picture * top)
    return levels.astype(np.uint8) if bit_depth == 8 else levels.astype(np.uint16)
