# SPDX-License-Identifier: Apache-2.0
"""Digitally reconstructed radiographs: a CT seen from many angles, as maps of attenuation.

CT voxels of about a millimetre are far coarser than a fluoroscope, which sees a quarter of one.
So bone is sharpened before it is projected, edges after it, and trabeculae, finer than any voxel,
are drawn where rays pass bone, in proportion to its thickness.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import nibabel as nib
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.simulation.draws import log_uniform

Image = npt.NDArray[np.float32]
Rng = np.random.Generator
_Volume = npt.NDArray[np.uint16]

_WATER_PER_MM = 0.019  # attenuation of water at 70 keV
_AIR_HU = -1000.0
_BONE_FROM_HU = 180.0
_BONE_GAIN = 1.5  # calcium attenuates more at the low energies of fluoroscopy than in CT
_UNIT_PER_MM = 1e-6  # of the integers that hold a volume
_VOXEL_MM = 0.625  # in the axial plane, after upsampling
_VIEW_PIXEL_MM = _VOXEL_MM / 2
_SLAB = 4  # voxels along the ray that are projected as one
_SOURCE_MM = 750.0  # from the source to the isocentre
_MOST_TILT = 0.35  # radians, cranial or caudal
_LEAST_SIDE_MM, _LARGEST_SIDE_MM = 20.0, 2500.0  # of a volume
_FIELD_MM = (90.0, 260.0)  # sides of the windows that crop_view takes


@dataclass(frozen=True)
class _Body:
    """all, bone: (slices, rows, columns) attenuation a mm in units of _UNIT_PER_MM, bone at half
    the resolution in the plane; slices from head to foot. slice_mm: distance between slices."""

    all: _Volume
    bone: _Volume
    slice_mm: float


def load_views(path: Path, count: int, seed: int) -> list[Image]:
    """Project the CT in path from count directions all around, slightly cranial or caudal.

    path: NIfTI in Hounsfield units, three axes; what is not finite counts as air. Returns (H, W)
    line integrals of attenuation at 0.3 mm a pixel, head up; equal arguments give equal views.
    Raises FrameError for what is no CT of a size that a body has.
    """
    body = _read_body(path)
    rng = np.random.default_rng([seed, count])
    angles = (np.arange(count) + rng.uniform(-0.4, 0.4, count)) * (2 * np.pi / count)
    return [_view(rng, body, float(angle)) for angle in angles]


def crop_view(rng: Rng, view: Image, size: int) -> Image:
    """(size, size) attenuation of a random window of view: turned, mirrored, magnified.

    The window is brought to a usual level of attenuation, as exposure control would by kV.
    """
    height, width = view.shape
    angle = rng.normal(0, 0.12) + float(rng.choice([0, np.pi / 2, -np.pi / 2], p=(0.8, 0.1, 0.1)))
    grown = abs(np.cos(angle)) + abs(np.sin(angle))  # side of the upright square around it
    largest = min(_FIELD_MM[1] / _VIEW_PIXEL_MM, min(height, width) / grown)
    smallest = min(_FIELD_MM[0] / _VIEW_PIXEL_MM, largest)
    side = log_uniform(rng, smallest, largest)
    center = _window_center(rng, view, side * grown)
    zoom, mirror = size / side, float(rng.choice([-1.0, 1.0]))
    c, s = np.cos(angle) * zoom, np.sin(angle) * zoom
    matrix = np.array([[mirror * c, mirror * s, 0.0], [-s, c, 0.0]])
    matrix[:, 2] = (size - 1) / 2 - matrix[:, :2] @ center
    window = cv2.warpAffine(
        view, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    crisp = _steepened(np.asarray(window, np.float32), times=min(3, int(1.4 * zoom)))
    return _at_usual_level(rng, crisp)


def _window_center(rng: Rng, view: Image, side: float) -> npt.NDArray[np.float64]:
    """Where a window of that side lies inside the view; of a few, the one with most structure."""
    spans = np.array([max(length - side, 0.0) for length in view.shape[::-1]])
    centers = side / 2 + rng.uniform(0, 1, (int(rng.integers(1, 6)), 2)) * spans
    return np.asarray(max(centers, key=lambda center: _structure(view, center, side / 4)))


def _structure(view: Image, center: npt.NDArray[np.float64], reach: float) -> float:
    """Mean contrast of neighbours 16 pixels apart around the center; next to none in air."""
    x0, y0 = np.maximum(center - reach, 0).astype(int)
    x1, y1 = (center + reach).astype(int) + 1
    middle = view[y0:y1:16, x0:x1:16]
    if min(middle.shape) < 3 or float(np.median(middle)) < 0.5:
        return 0.0
    return float(np.abs(np.diff(middle, 2, axis=0)).mean() + np.abs(np.diff(middle, 2)).mean())


def _at_usual_level(rng: Rng, window: Image) -> Image:
    level = max(float(np.percentile(window[::8, ::8], 60)), 0.5)
    factor = min(rng.uniform(1.4, 3.2) / level, 1.0)
    return np.asarray(np.clip(window * np.float32(factor), 0.0, 6.0), np.float32)


def _read_body(path: Path) -> _Body:
    try:
        image = _upright(nib.load(path))
        shape, zooms = image.shape, tuple(float(zoom) for zoom in image.header.get_zooms()[:3])
        volume = np.asarray(image.dataobj, np.float32) if len(shape) == 3 else None
    except (OSError, ValueError, TypeError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise FrameError(f"The CT {path} cannot be read: {error}") from error
    if volume is None or min(shape) < 8:
        raise FrameError(f"The CT {path} must have three axes of 8 voxels or more (got {shape})")
    sides = [n * zoom for n, zoom in zip(shape, zooms, strict=True)]
    if not _LEAST_SIDE_MM <= min(sides) <= max(sides) <= _LARGEST_SIDE_MM:
        text = " x ".join(f"{side:.4g}" for side in sides)
        raise FrameError(f"The CT {path} must be 20 to 2500 mm a side (its header says {text})")
    volume = np.nan_to_num(volume, nan=_AIR_HU, posinf=_AIR_HU, neginf=_AIR_HU)
    if volume.min() > _AIR_HU / 2:
        raise FrameError(
            f"The CT {path} must be in Hounsfield units, of which air has about {_AIR_HU:.0f} "
            f"(its least value is {volume.min():g})"
        )
    return _body_of(volume, zooms)


def _upright(image: Any) -> Any:
    """Axes right, anterior, superior."""
    reorient = cast("Any", nib.as_closest_canonical)
    return reorient(image)


def _body_of(volume: Image, zooms: tuple[float, ...]) -> _Body:
    slices = np.flip(volume.transpose(2, 1, 0), axis=0)  # head first; rows from back to front
    size = tuple(
        max(2, round(n * zoom / _VOXEL_MM)) for n, zoom in zip(volume.shape, zooms, strict=True)
    )
    fine = np.empty((len(slices), size[1], size[0]), np.uint16)
    bone = np.empty((len(slices), size[1] // 2, size[0] // 2), np.uint16)
    for index, hounsfield in enumerate(slices):
        fine[index], bone[index] = _attenuation(np.ascontiguousarray(hounsfield), size[:2])
    return _Body(fine, bone, zooms[2])


def _attenuation(hounsfield: Image, size: tuple[int, ...]) -> tuple[_Volume, _Volume]:
    """Attenuation of a slice, upsampled and sharpened, and that of its bone."""
    slice_hu = cv2.resize(hounsfield, (size[0], size[1]), interpolation=cv2.INTER_CUBIC)
    solid = np.maximum(slice_hu, 0)  # sharpened with its air, skin would count as bone
    slice_hu = slice_hu + 1.2 * (solid - cv2.GaussianBlur(solid, (0, 0), 2.2))
    bone = _BONE_GAIN * np.clip(slice_hu - _BONE_FROM_HU, 0, 2200)
    tissue = np.clip(slice_hu, -1000, 2200) + 1000
    to_units = _WATER_PER_MM / 1000 / _UNIT_PER_MM
    total = np.clip((tissue + bone) * to_units, 0, 65535).astype(np.uint16)
    half = cv2.resize(bone, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
    return total, np.clip(half * to_units, 0, 65535).astype(np.uint16)


def _view(rng: Rng, body: _Body, angle: float) -> Image:
    height_mm = len(body.all) * body.slice_mm
    most = min(_MOST_TILT, 0.25 * height_mm / 200)  # short volumes would lose too many rays
    tilt = rng.uniform(-most, most)
    total = _cone_sum(body.all, _VOXEL_MM, body.slice_mm, angle, tilt)
    bone = _cone_sum(body.bone, 2 * _VOXEL_MM, body.slice_mm, angle, tilt)
    bone = np.asarray(cv2.resize(bone, total.shape[::-1], interpolation=cv2.INTER_LINEAR))
    lost = round(abs(np.tan(tilt)) * 100 / _VOXEL_MM) + len(total) // 25  # rays that leave it
    inside = slice(lost, len(total) - lost)
    return _with_detail(rng, *(_doubled(m[inside]) for m in (total, bone)))


def _cone_sum(
    volume: _Volume, pixel_mm: float, slice_mm: float, angle: float, tilt: float
) -> Image:
    """(H, W) line integrals of rays from a point source, pixel_mm at the isocentre.

    Slices are turned by angle; then slabs of equal depth are shifted by the tilt, magnified by
    their distance from the source, and summed.
    """
    turned = _turned(volume, angle)
    count, slabs, width = turned.shape
    height = max(4, round(count * slice_mm / pixel_mm))
    total = np.zeros((height, width), np.float32)
    for slab in range(slabs):
        depth = (slab - (slabs - 1) / 2) * _SLAB * pixel_mm
        grow = _SOURCE_MM / (_SOURCE_MM + depth)
        down = slice_mm / pixel_mm * grow
        shift = np.tan(tilt) * depth / pixel_mm + (height - 1) / 2 - down * (count - 1) / 2
        matrix = np.array([[grow, 0, (width - 1) / 2 * (1 - grow)], [0, down, shift]])
        total += cv2.warpAffine(turned[:, slab], matrix, (width, height))
    return np.asarray(total * np.float32(_UNIT_PER_MM * pixel_mm / np.cos(tilt)), np.float32)


def _turned(volume: _Volume, angle: float) -> Image:
    """(slices, slabs, width): each slice turned about its centre, summed over slabs of rows."""
    count, rows, columns = volume.shape
    side = _SLAB * (int(np.hypot(rows, columns)) // _SLAB)
    matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), np.degrees(angle), 1.0)
    matrix[:, 2] += ((side - columns) / 2, (side - rows) / 2)
    matrix[1] /= 2  # along the rays every second voxel will do
    turned = np.empty((count, side // _SLAB, side), np.float32)
    for index in range(count):
        whole = cv2.warpAffine(volume[index], matrix, (side, side // 2)).astype(np.float32)
        turned[index] = _SLAB * cv2.resize(
            whole, (side, side // _SLAB), interpolation=cv2.INTER_AREA
        )
    return turned


def _doubled(image: Image) -> Image:
    size = (2 * image.shape[1], 2 * image.shape[0])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.float32)


def _with_detail(rng: Rng, total: Image, bone: Image) -> Image:
    """Bone with sharp edges and trabeculae; soft tissue as it was."""
    sharp = bone + 1.5 * (bone - cv2.GaussianBlur(bone, (0, 0), 3.0))
    sharp += 1.0 * (bone - cv2.GaussianBlur(bone, (0, 0), 8.0))
    sharp = _steepened(np.maximum(sharp, 0), times=1)
    lattice = np.asarray(rng.standard_normal(bone.shape, dtype=np.float32))
    fine = cv2.GaussianBlur(lattice, (0, 0), 1.1, sigmaY=2.2)
    coarse = cv2.GaussianBlur(lattice[::-1], (0, 0), 3.5, sigmaY=2.0)
    trabeculae = fine / fine.std() + 0.8 * coarse / coarse.std()
    texture = np.minimum(bone, 0.8) * np.float32(rng.uniform(0.03, 0.08)) * trabeculae
    return np.asarray(np.maximum(total - bone + sharp + texture, 0), np.float32)


def _steepened(image: Image, times: int) -> Image:
    """Shock filter (Osher and Rudin 1990): blurred edges become steep, nothing overshoots."""
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _ in range(times):
        smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
        bend = cv2.Laplacian(smooth, cv2.CV_32F)
        raised = np.where(bend < 0, cv2.dilate(image, kernel), cv2.erode(image, kernel))
        strength = np.minimum(np.abs(bend) * 15, 0.5)
        image = np.asarray(image + strength * (raised - image), np.float32)
    return image
