# SPDX-License-Identifier: Apache-2.0
"""What one X-ray image looks like, in numbers: grey levels, noise, gradients, edges, ridges.

All are taken of the exposed part of the image, after it was scaled to SIDE pixels on its longer
side, because that is how a network sees it. Grey levels are 0..255.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

SIDE = 512
LEAST_SIDE = 64  # of the scaled image: less holds no patches to measure noise on
GREY_BINS = 64
FREQUENCY_BINS = 16
RIDGE_SIGMAS = (1.0, 2.0, 4.0)
WIDEST_EDGE_PX = 6.0

_PATCH = 32
_FLAT_SHARE = 0.2  # of the patches, those with the least structure
_EDGES = 400
_REACH = 16  # pixels on either side of an edge in which it must end
_EDGE_SMOOTHING = 1.0  # sigma
_EDGE_VARIANCE = _EDGE_SMOOTHING**2 + 0.52  # of this and of Sobel's filter, taken out of widths
_GREY_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_GRADIENT_PERCENTILES = (25, 50, 75, 90, 97, 99.5)
_RIDGE_PERCENTILES = (50, 90, 97, 99, 99.7)
_EDGE_PERCENTILES = (10, 25, 50, 75, 90)
_LEAST_NOISE = 0.1  # grey levels; below a rounding error noise has no meaning


@dataclass(frozen=True)
class ImageStatistics:
    """Numbers of one image.

    histogram: (GREY_BINS,) share of exposed pixels in equal bins of 0..255. exposed: share of
    the image. noise: standard deviation in the flattest patches, in grey levels. noise_power:
    (FREQUENCY_BINS,) power in grey levels² at equal steps of 0 to 0.5 cycles a pixel: white noise
    has its variance in each. gradients: magnitudes in grey levels a pixel at percentiles.
    edge_widths: sigma of the strongest edges in pixels, each taken as a step blurred by a
    Gaussian; (N,), 0 <= N. ridges: by sigma, contrast of dark lines over local noise at
    percentiles of the exposed pixels.
    """

    histogram: Values
    grey_percentiles: Values
    exposed: float
    noise: float
    noise_power: Values
    gradients: Values
    edge_widths: Values
    ridges: dict[float, Values]


def measure(grey: npt.NDArray[np.uint8]) -> ImageStatistics:
    """Measure an image (H, W) of 0..255. Raises FrameError when it is too narrow to measure."""
    image = _scaled(grey)
    if min(image.shape) < LEAST_SIDE:
        raise FrameError(
            f"an image of {grey.shape[1]} x {grey.shape[0]} pixels is too narrow to measure: its "
            f"sides may differ by a factor of {SIDE // LEAST_SIDE} at most"
        )
    mask = exposed_part(image)
    seen = image[mask]
    counts, _ = np.histogram(seen, bins=GREY_BINS, range=(0, 256))
    patches = flat_patches(image, mask)
    power = noise_power(patches)
    gradient = _gradient(image)
    grain = local_noise(image)
    return ImageStatistics(
        histogram=counts / counts.sum(),
        grey_percentiles=np.percentile(seen, _GREY_PERCENTILES),
        exposed=float(mask.mean()),
        noise=float(np.sqrt(np.mean([patch.var() for patch in patches]))),
        noise_power=power,
        gradients=np.percentile(np.hypot(*gradient)[mask], _GRADIENT_PERCENTILES),
        edge_widths=edge_widths(image, mask),
        ridges={
            sigma: np.percentile((ridge_depth(image, sigma) / grain)[mask], _RIDGE_PERCENTILES)
            for sigma in RIDGE_SIGMAS
        },
    )


def _scaled(grey: npt.NDArray[np.uint8]) -> Image:
    scale = SIDE / max(grey.shape)
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, size, interpolation=method), np.float32)


def exposed_part(image: Image) -> Mask:
    """(H, W) True where the image is no black border, with a margin; all of it when in doubt."""
    smooth = cv2.blur(image, (5, 5))
    lit = (smooth > max(4.0, 0.12 * float(np.median(image)))).astype(np.uint8)
    closed = cv2.morphologyEx(lit, cv2.MORPH_CLOSE, np.ones((31, 31), np.uint8))
    framed = cv2.copyMakeBorder(closed, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inside = np.asarray(cv2.erode(framed, np.ones((17, 17), np.uint8))[1:-1, 1:-1] > 0)
    return inside if inside.mean() > 0.1 else np.ones(image.shape, dtype=bool)


def flat_patches(image: Image, mask: Mask) -> Values:
    """(N, 32, 32), N >= 1: the patches with the least structure, each without its mean and slope.

    Structure is what is left of a patch when pixels are averaged by 8: noise hardly is.
    """
    tiles = _tiles(image)
    inside = _tiles(mask).mean(axis=(1, 2)) == 1
    tiles = tiles[inside] if inside.any() else tiles
    ramp = np.linspace(-1, 1, _PATCH)
    ramp /= np.sqrt((ramp**2).sum() * _PATCH)
    tiles -= tiles.mean(axis=(1, 2), keepdims=True)
    tiles -= (tiles * ramp).sum(axis=(1, 2), keepdims=True) * ramp
    tiles -= (tiles * ramp[:, None]).sum(axis=(1, 2), keepdims=True) * ramp[:, None]
    cells = _PATCH // 8
    structure = tiles.reshape(-1, cells, 8, cells, 8).mean(axis=(2, 4)).var(axis=(1, 2))
    count = max(1, round(_FLAT_SHARE * len(tiles)))
    return np.asarray(tiles[np.argsort(structure, kind="stable")[:count]])


def _tiles(image: Image | Mask) -> Values:
    """(N, 32, 32) patches side by side; a rest at the right and lower border is left out."""
    rows, columns = (side // _PATCH for side in image.shape)
    whole = image[: rows * _PATCH, : columns * _PATCH]
    split = whole.reshape(rows, _PATCH, columns, _PATCH).swapaxes(1, 2)
    return np.asarray(split.reshape(-1, _PATCH, _PATCH), np.float64)


def noise_power(patches: Values) -> Values:
    """(FREQUENCY_BINS,) radial noise power spectrum of patches (N, S, S), in their unit squared.

    Mean of |DFT|² under a Hann window over the window's own power: white noise of variance v
    gives v at every frequency. Corners beyond 0.5 cycles a pixel are left out.
    """
    side = patches.shape[-1]
    window = np.outer(*[np.hanning(side + 2)[1:-1]] * 2)
    power = np.abs(np.fft.fft2(patches * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(np.fft.fftfreq(side), np.fft.fftfreq(side)[:, None])
    bins = (frequency * 2 * FREQUENCY_BINS).astype(int).ravel()
    total = np.bincount(bins, power.mean(axis=0).ravel(), FREQUENCY_BINS)
    return np.asarray((total / np.bincount(bins, minlength=FREQUENCY_BINS))[:FREQUENCY_BINS])


def _gradient(image: Image) -> tuple[Image, Image]:
    """Derivatives along x and y of the lightly smoothed image, in its unit a pixel."""
    smooth = cv2.GaussianBlur(image, (0, 0), _EDGE_SMOOTHING)
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def edge_widths(image: Image, mask: Mask) -> Values:
    """(N,) sigma in pixels of up to 400 of the strongest edges in the mask.

    An edge is a local maximum of the gradient. Along it the image is followed both ways until it
    stops rising or falling; for a step blurred by a Gaussian, height over slope is sqrt(2 pi)
    sigma. Edges without an end within 16 pixels, and wider than WIDEST_EDGE_PX, are slopes.
    """
    gx, gy = _gradient(image)
    magnitude = np.hypot(gx, gy)
    crest = magnitude >= cv2.dilate(magnitude, np.ones((7, 7), np.uint8))
    ys, xs = np.nonzero(crest & mask & (magnitude > 0.5))
    order = np.argsort(-magnitude[ys, xs], kind="stable")[:_EDGES]
    ys, xs = ys[order], xs[order]
    if len(xs) == 0:
        return np.zeros(0)
    slope = magnitude[ys, xs].astype(np.float64)
    steps = np.arange(-_REACH, _REACH + 1)
    at_x = (xs[:, None] + steps * (gx[ys, xs] / slope)[:, None]).astype(np.float32)
    at_y = (ys[:, None] + steps * (gy[ys, xs] / slope)[:, None]).astype(np.float32)
    smooth = cv2.GaussianBlur(image, (0, 0), _EDGE_SMOOTHING)
    profile = cv2.remap(smooth, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rises = np.diff(profile, axis=1) > 0.02 * slope[:, None]  # uphill along the gradient
    forward = np.cumprod(rises[:, _REACH:], axis=1).sum(axis=1)
    backward = np.cumprod(rises[:, :_REACH][:, ::-1], axis=1).sum(axis=1)
    rows = np.arange(len(xs))
    height = profile[rows, _REACH + forward] - profile[rows, _REACH - backward]
    apparent = height / (slope * np.sqrt(2 * np.pi))
    sigma = np.sqrt(np.maximum(apparent**2 - _EDGE_VARIANCE, 0.0))
    ends = (forward < _REACH) & (backward < _REACH) & (sigma < WIDEST_EDGE_PX)
    return np.asarray(sigma[ends], np.float64)


def ridge_depth(image: Image, sigma: float) -> Image:
    """(H, W) how much darker than beside them dark lines are; 0 where there is none.

    The larger eigenvalue of the Hessian at scale sigma, times sigma² * 2 sqrt(2): the depth of a
    long line of Gaussian profile whose own sigma is that. Over local_noise it is the contrast to
    noise ratio of such a line, where noise is white.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), sigma)
    xx, xy, yy = (
        cv2.Sobel(smooth, cv2.CV_32F, *orders, ksize=3, scale=scale)
        for orders, scale in (((2, 0), 1 / 4), ((1, 1), 1 / 4), ((0, 2), 1 / 4))
    )
    mean, half = (xx + yy) / 2, (xx - yy) / 2
    depth = (mean + np.sqrt(half * half + xy * xy)) * np.float32(2 * np.sqrt(2) * sigma**2)
    return np.asarray(np.maximum(depth, 0), np.float32)


def local_noise(image: Image) -> Image:
    """(H, W) standard deviation of pixels against their neighbours, as if noise were white."""
    # The kernel of Immerkaer (1996) does not see slopes and curves; white noise comes out 6-fold.
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    grain = np.abs(cv2.filter2D(image, -1, kernel))
    mean = cv2.GaussianBlur(grain, (0, 0), 12.0) * np.float32(np.sqrt(np.pi / 2) / 6)
    return np.asarray(np.maximum(mean, _LEAST_NOISE), np.float32)


def features(statistics: ImageStatistics) -> dict[str, dict[str, float]]:
    """The numbers of an image for a classifier, by group: grey, noise, gradient, edge, ridge.

    Amplitudes are logarithms, so that a factor counts the same whether small or large.
    """
    grey = {f"p{p}": float(v) for p, v in _named(_GREY_PERCENTILES, statistics.grey_percentiles)}
    grey |= {
        "saturated": float(statistics.histogram[-1]),
        "black": float(statistics.histogram[0]),
        "exposed": statistics.exposed,
    }
    power = np.log(statistics.noise_power + _LEAST_NOISE**2)
    frequencies = (np.arange(FREQUENCY_BINS) + 0.5) / (2 * FREQUENCY_BINS)
    noise = {"log_sigma": float(np.log(statistics.noise + _LEAST_NOISE))}
    noise |= {f"log_power_{f:.2f}": float(v) for f, v in _named(frequencies, power - power.mean())}
    gradient = {
        f"log_p{p}": float(np.log(v + 0.05))
        for p, v in _named(_GRADIENT_PERCENTILES, statistics.gradients)
    }
    widths = statistics.edge_widths
    widths = np.percentile(widths if len(widths) else [WIDEST_EDGE_PX], _EDGE_PERCENTILES)
    edge = {f"sigma_p{p}": float(v) for p, v in _named(_EDGE_PERCENTILES, widths)}
    ridge = {
        f"log_s{sigma:g}_p{p}": float(np.log(v + 0.05))
        for sigma, values in statistics.ridges.items()
        for p, v in _named(_RIDGE_PERCENTILES, values)
    }
    return {"grey": grey, "noise": noise, "gradient": gradient, "edge": edge, "ridge": ridge}


def _named(names: npt.ArrayLike, values: Values) -> list[tuple[float, float]]:
    return list(zip(np.asarray(names).tolist(), values.tolist(), strict=True))
