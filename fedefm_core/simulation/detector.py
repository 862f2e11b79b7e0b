# SPDX-License-Identifier: Apache-2.0
"""From attenuation to the picture on the console: Beer-Lambert, scatter, noise, display.

Lengths named _px are pixels of the native frame, the one that the detector delivers. It may be
coarser than the image: then signal and noise are made at native size and enlarged, which blurs
edges and correlates noise exactly as in exported frames that someone has resized.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.simulation.draws import log_uniform

Image = npt.NDArray[np.float32]
Rng = np.random.Generator

_LEAST_SIGNAL = 1e-4  # of the unattenuated beam; the logarithm needs a floor
_LEAST_SPREAD = 0.1  # of log signal: the window is not opened on noise alone
_WIDEST_DIRECT_BLUR = 2.5  # larger Gaussians are cheaper on a shrunken copy, and look the same


@dataclass(frozen=True)
class Detector:
    """How one image chain sees.

    photons: mean count a native pixel without an object. scatter_fraction: scattered over primary.
    glare_fraction: veiling glare. blur_px: sigma of focal spot and detector blur. noise_blur_px:
    sigma that shapes the noise power spectrum. electronic_noise: in photons. gamma: of the
    display curve on a log scale. sharpening: strength of the console's edge enhancement.
    brightness: of the median pixel, 0..1, before gamma. contrast: display range of a quarter of
    the signal's, before gamma.

    exposure_control: 0..1, how far the generator holds the dose at the detector: at 1, photons is
    the count of the median pixel, whatever is in the beam. native_size: side of the native frame
    in pixels; None: that of the image. motion_px, motion_angle_rad: length and direction of the
    blur by motion during the pulse. noise_pedestal: white noise over shaped noise, of one origin.
    line_noise: standard deviation of whole rows over that of pixels. heel: change of exposure
    (log) from border to border, along heel_angle_rad. vignetting: log drop of exposure in the
    corners. averaging: weight of earlier frames in the temporal filter, 0..1; it lowers noise.
    ghost, ghost_px: weight and offset (x, y) of what an earlier frame leaves behind.
    defects: dead rows and columns, at places that defect_seed fixes.

    flattening: share of the coarse brightness that is removed (dynamic range compression),
    flattening_scale: coarse means a sigma of this fraction of the side. surround: how dark the
    console takes the unexposed border for, in log signal; enhancement then overshoots along it.
    sharpening_px: its radius. denoising: aperture of the median filter, 0, 3
    or 5. toe: grey level before gamma below which the curve bends, so that it never reaches 0.
    s_curve: 0..1, share of a smooth step in the display curve. black, white: grey levels of
    the ends of the display curve, 0..1.
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
    exposure_control: float = 0.0
    native_size: int | None = None
    motion_px: float = 0.0
    motion_angle_rad: float = 0.0
    noise_pedestal: float = 0.0
    line_noise: float = 0.0
    heel: float = 0.0
    heel_angle_rad: float = 0.0
    vignetting: float = 0.0
    averaging: float = 0.0
    ghost: float = 0.0
    ghost_px: tuple[float, float] = (0.0, 0.0)
    defects: int = 0
    defect_seed: int = 0
    flattening: float = 0.0
    flattening_scale: float = 0.1
    surround: float = 0.0
    sharpening_px: float = 2.0
    denoising: int = 0
    toe: float = 0.0
    s_curve: float = 0.0
    black: float = 0.0
    white: float = 1.0


def random_detector(rng: Rng, kind: str) -> Detector:
    """Draw an image chain as it is usual for the kind of image."""
    if kind == "simulation":
        return _random_renderer(rng)
    dose = {"human": 1.0, "animal": 1.2, "phantom": 2.5}[kind]
    scatter = {"human": 1.0, "animal": 0.7, "phantom": 0.4}[kind]
    median = float(np.clip(rng.normal(0.45, 0.12), 0.18, 0.8))
    gamma = log_uniform(rng, 0.9, 2.6)
    averaging = _sometimes(rng, 0.5, 0.2, 0.8)
    return Detector(
        photons=log_uniform(rng, 250, 6000) * dose,
        scatter_fraction=scatter * rng.uniform(0.2, 1.4),
        glare_fraction=scatter * rng.uniform(0.0, 0.15),
        blur_px=rng.uniform(0.4, 1.3),
        noise_blur_px=_random_grain(rng),
        electronic_noise=rng.uniform(0.5, 8.0),
        gamma=gamma,
        sharpening=_sometimes(rng, 0.55, 0.15, 1.2),
        brightness=median ** (1 / gamma),
        contrast=rng.uniform(0.1, 0.3) * median ** (1 / gamma - 1) / gamma,
        exposure_control=rng.uniform(0.7, 1.0),
        native_size=_random_native_size(rng),
        motion_px=_sometimes(rng, 0.3, 1.0, 4.5),
        motion_angle_rad=rng.uniform(0, np.pi),
        noise_pedestal=_sometimes(rng, 0.4, 0.05, 0.4),
        line_noise=_sometimes(rng, 0.1, 0.1, 0.4),
        heel=_sometimes(rng, 0.6, 0.0, 0.6),
        heel_angle_rad=rng.uniform(0, 2 * np.pi),
        vignetting=_sometimes(rng, 0.5, -0.2, 0.6),
        averaging=averaging,
        ghost=_sometimes(rng, 0.35 if averaging else 0.0, 0.1, 0.4),
        ghost_px=(rng.normal(0, 2.0), rng.normal(0, 2.0)),
        defects=int(rng.integers(1, 4)) if rng.random() < 0.04 else 0,
        defect_seed=int(rng.integers(2**31)),
        flattening=_sometimes(rng, 0.7, 0.2, 0.9),
        flattening_scale=log_uniform(rng, 0.03, 0.2),
        surround=rng.uniform(0.0, 2.0),
        sharpening_px=log_uniform(rng, 0.8, 9.0),
        denoising=int(rng.choice([0, 3, 5], p=[0.87, 0.1, 0.03])),
        toe=_sometimes(rng, 0.75, 0.1, 0.5),
        s_curve=_sometimes(rng, 0.25, 0.2, 0.8),
        black=_sometimes(rng, 0.25, 0.0, 0.3),
        white=1.0 - _sometimes(rng, 0.25, 0.0, 0.3),
    )


def _random_renderer(rng: Rng) -> Detector:
    """The image chain of a rendering program: next to no noise, an even light, any window."""
    return Detector(
        photons=log_uniform(rng, 50_000, 5_000_000),
        scatter_fraction=0.0,
        glare_fraction=0.0,
        blur_px=rng.uniform(0.2, 0.9),
        noise_blur_px=_sometimes(rng, 0.5, 0.3, 1.0),
        electronic_noise=1.0,
        gamma=log_uniform(rng, 0.7, 1.5),
        sharpening=0.0,
        brightness=rng.uniform(0.3, 0.8),
        contrast=rng.uniform(0.1, 0.25),
        native_size=_random_native_size(rng),
    )


def _random_native_size(rng: Rng) -> int:
    """Most frames have pixels enough for a network of 512; the others are enlarged."""
    size = log_uniform(rng, 220, 512) if rng.random() < 0.45 else log_uniform(rng, 512, 1100)
    return round(size)


def _random_grain(rng: Rng) -> float:
    """Sigma of the noise: seldom white, mostly as fine as a detector's, sometimes coarse."""
    fine, coarse, drawn = rng.uniform(0.35, 0.9), rng.uniform(0.8, 1.9), rng.random()
    return float(0.0 if drawn < 0.12 else fine if drawn < 0.75 else coarse)


def _sometimes(rng: Rng, chance: float, low: float, high: float) -> float:
    """Uniform in low..high by chance, otherwise 0; draws two numbers either way."""
    happens, value = rng.random() < chance, rng.uniform(low, high)
    return float(value) if happens else 0.0


def expose(attenuation: Image, detector: Detector, rng: Rng) -> Image:
    """Detector signal in units of the unattenuated beam, with scatter, blur and noise.

    attenuation: (H, W) line integral of the attenuation coefficient, dimensionless (Beer-Lambert).
    Returns (H, W); a native frame that is smaller is enlarged, a larger one has less noise.
    """
    height, width = attenuation.shape
    native_size = detector.native_size or height
    primary = np.asarray(cv2.exp(-attenuation), np.float32)
    if native_size < height:
        primary = _resize(primary, native_size, round(width * native_size / height))
    primary = _moved(_lit(primary, detector), detector)
    signal = primary + _astray(primary, detector)
    photons = detector.photons * max(1.0, native_size / height) ** 2
    photons *= float(np.median(signal[::8, ::8])) ** -detector.exposure_control
    photons *= (1 + detector.averaging) / (1 - detector.averaging)  # of a recursive filter
    variance = signal * np.float32(1 / photons)
    variance += np.float32((detector.electronic_noise / photons) ** 2)
    noise = shaped_noise(signal.shape, detector, rng)
    noise *= cv2.sqrt(variance)
    signal += noise
    _spoil(signal, detector)
    if native_size < height:
        signal = _resize(signal, height, width)
    np.maximum(signal, np.float32(_LEAST_SIGNAL), out=signal)
    return signal


def shaped_noise(shape: tuple[int, ...], detector: Detector, rng: Rng) -> Image:
    """Noise of unit variance with the detector's power spectrum, plus noise of whole rows."""
    noise = np.asarray(rng.standard_normal(shape, dtype=np.float32))
    if detector.noise_blur_px > 0.25:
        shaped = blur(noise, detector.noise_blur_px)
        if detector.noise_pedestal > 0:
            shaped += noise * np.float32(detector.noise_pedestal * _deviation(shaped))
        noise = shaped
        noise *= np.float32(1 / _deviation(shaped))
    if detector.line_noise > 0:
        rows = rng.standard_normal((shape[0], 1), dtype=np.float32)
        noise += rows * np.float32(detector.line_noise)
    return noise


def _deviation(image: Image) -> float:
    _, deviation = cv2.meanStdDev(image)
    return max(float(deviation[0, 0]), 1e-6)


def _lit(primary: Image, detector: Detector) -> Image:
    """Uneven exposure: the heel effect of the anode, the falling off of an image intensifier."""
    if detector.heel == 0 and detector.vignetting == 0:
        return primary
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in primary.shape)
    angle, tilt, drop = detector.heel_angle_rad, detector.heel / 2, detector.vignetting / 2
    along_x = np.exp(tilt * np.cos(angle) * x - drop * x**2).astype(np.float32)
    along_y = np.exp(tilt * np.sin(angle) * y - drop * y**2).astype(np.float32)
    primary *= along_x
    primary *= along_y[:, None]
    return primary


def _moved(primary: Image, detector: Detector) -> Image:
    """Blur by focal spot and motion, and the ghost of an earlier frame."""
    if detector.ghost > 0:
        dx, dy = detector.ghost_px
        matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        earlier = cv2.warpAffine(
            primary, matrix, primary.shape[::-1], borderMode=cv2.BORDER_REPLICATE
        )
        primary = _weighted(primary, 1 - detector.ghost, np.asarray(earlier), detector.ghost)
    if detector.motion_px > 0:
        kernel = motion_kernel(detector.motion_px, detector.motion_angle_rad)
        primary = np.asarray(cv2.filter2D(primary, -1, kernel, borderType=cv2.BORDER_REPLICATE))
    return blur(primary, detector.blur_px, least=0.2)


def motion_kernel(length: float, angle_rad: float) -> Image:
    """Odd-sided kernel of sum 1 that is symmetric about its centre: a segment of that length."""
    half = int(np.ceil(length / 2)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along = np.abs(x * np.cos(angle_rad) + y * np.sin(angle_rad))
    across = np.abs(y * np.cos(angle_rad) - x * np.sin(angle_rad))
    kernel = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _spoil(signal: Image, detector: Detector) -> None:
    """Dead rows and columns, of which the console has interpolated some, badly."""
    if detector.defects == 0:
        return
    rng = np.random.default_rng(detector.defect_seed)
    for _ in range(detector.defects):
        lines = signal if rng.random() < 0.5 else signal.T
        at, gain = (
            int(rng.integers(len(lines))),
            np.float32(rng.choice([0.0, 0.7, 0.95, 1.05, 1.4])),
        )
        lines[at, int(rng.uniform(0, 0.7) * len(lines[at])) :] *= gain


def display(signal: Image, detector: Detector, field: Image | None = None) -> Image:
    """Console picture in 0..1: log scale, window from the image's own statistics, enhancement.

    field: (H, W) in 0..1, the part of the detector that is exposed; statistics use it alone.
    """
    picture = _flattened(np.asarray(cv2.log(signal), np.float32), detector, field)
    coarse = _resize(picture, len(picture) // 4, len(picture[0]) // 4)  # the window ignores noise
    seen = coarse if field is None else coarse[_resize(field, *coarse.shape) > 0.75]
    low, middle, high = np.percentile(seen, (2.0, 50.0, 98.0))
    spread = max(float(high - low) / 4, _LEAST_SPREAD)
    picture -= np.float32(middle)
    picture *= np.float32(0.8 * detector.contrast / spread)
    picture = _sharpened(picture, detector)
    picture += np.float32(detector.brightness)
    return _toned(picture, detector)


def _flattened(picture: Image, detector: Detector, field: Image | None) -> Image:
    """Denoising and dynamic range compression, on the log scale."""
    if field is not None and detector.surround > 0:
        picture += (field - 1) * np.float32(detector.surround)
    if detector.denoising:
        picture = np.asarray(cv2.medianBlur(picture, detector.denoising), np.float32)
    if detector.flattening > 0:
        coarse = wide_blur(picture, detector.flattening_scale)
        picture = _weighted(picture, 1, coarse, -detector.flattening)
    return picture


def _sharpened(picture: Image, detector: Detector) -> Image:
    if detector.sharpening == 0:
        return picture
    enlarged = max(1.0, len(picture) / (detector.native_size or len(picture)))
    smooth = blur(picture, detector.sharpening_px * enlarged)
    return _weighted(picture, 1 + detector.sharpening, smooth, -detector.sharpening)


def _weighted(one: Image, weight: float, other: Image, other_weight: float) -> Image:
    return np.asarray(cv2.addWeighted(one, weight, other, other_weight, 0), np.float32)


def _toned(picture: Image, detector: Detector) -> Image:
    """The display curve: toe, clipping at both ends, S-curve, gamma, black and white levels."""
    if detector.toe > 0:
        below = np.minimum(picture - np.float32(detector.toe), 0)
        picture -= below
        below *= np.float32(1 / detector.toe)
        picture += (cv2.exp(below) - np.float32(1)) * np.float32(detector.toe)
    np.clip(picture, 0.0, 1.0, out=picture)
    if detector.s_curve > 0:
        step = 3 - 2 * picture
        step *= picture
        step *= picture
        picture = _weighted(picture, 1 - detector.s_curve, step, detector.s_curve)
    picture = np.asarray(cv2.pow(picture, detector.gamma), np.float32)
    if detector.black > 0 or detector.white < 1:
        picture *= np.float32(detector.white - detector.black)
        picture += np.float32(detector.black)
    return picture


def blur(image: Image, sigma: float, least: float = 0.0) -> Image:
    """Gaussian blur; a sigma of least or less leaves the image as it is."""
    if sigma <= least:
        return image
    if sigma > _WIDEST_DIRECT_BLUR:
        factor = min(sigma / 1.5, min(image.shape) / 16)
        small = _resize(image, *(round(side / factor) for side in image.shape))
        small = np.asarray(cv2.GaussianBlur(small, (0, 0), sigma / factor), np.float32)
        return _resize(small, *image.shape)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def _astray(primary: Image, detector: Detector) -> Image:
    """Scatter from the object and veiling glare of the detector: what arrives at wrong places."""
    small = _thumbnail(primary)
    both = detector.scatter_fraction * _blurred_thumbnail(small, 0.08)
    both += detector.glare_fraction * _blurred_thumbnail(small, 0.3)
    return _enlarged(both, primary.shape)


def wide_blur(image: Image, relative_sigma: float) -> Image:
    """Blur with a sigma given as a fraction of the image side, on a small copy."""
    return _enlarged(_blurred_thumbnail(_thumbnail(image), relative_sigma), image.shape)


def _thumbnail(image: Image) -> Image:
    return np.asarray(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), np.float32)


def _blurred_thumbnail(small: Image, relative_sigma: float) -> Image:
    sigma = len(small) * relative_sigma
    soft = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(soft, np.float32)


def _enlarged(small: Image, shape: tuple[int, ...]) -> Image:
    full = cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, np.float32)


def _resize(image: Image, height: int, width: int) -> Image:
    """Shrink by area, enlarge by cubic interpolation."""
    method = cv2.INTER_AREA if height < len(image) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.float32)


def quantise(picture: Image, bit_depth: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """0..1 to integers of bit_depth bits."""
    top = (1 << bit_depth) - 1
    levels = np.round(picture * top)
    return levels.astype(np.uint8) if bit_depth == 8 else levels.astype(np.uint16)
