# SPDX-License-Identifier: Apache-2.0
"""Projected CT against bodies whose attenuation is known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from fedefm_core.errors import FrameError
from fedefm_core.simulation.projection import crop_view, load_views

WATER_PER_MM = 0.019
AIR = -1000


def cylinder(radius_mm: float, inside_hu: float, voxel_mm: float = 2.0) -> npt.NDArray[np.int16]:
    """(60, 60, 30): an upright cylinder in air."""
    x, y = (np.mgrid[0:60, 0:60] - 29.5) * voxel_mm
    disc = np.where(np.hypot(x, y) < radius_mm, inside_hu, AIR)
    return np.repeat(disc[:, :, None], 30, axis=2).astype(np.int16)


def write(path: Path, volume: npt.NDArray[Any], voxel_mm: float = 2.0) -> Path:
    nib.save(nib.Nifti1Image(volume, np.diag([voxel_mm] * 3 + [1.0])), path)
    return path


def test_water_attenuates_by_its_thickness_from_all_sides(tmp_path: Path) -> None:
    views = load_views(write(tmp_path / "water.nii.gz", cylinder(40.0, 0.0)), count=5, seed=1)
    for view in views:
        middle = view[len(view) // 2]
        assert middle.max() == pytest.approx(80 * WATER_PER_MM, rel=0.06)


def test_rays_beside_the_body_are_not_attenuated(tmp_path: Path) -> None:
    (view,) = load_views(write(tmp_path / "water.nii", cylinder(25.0, 0.0)), count=1, seed=2)
    assert abs(view[:, :20]).max() < 0.02
    assert abs(view[:, -20:]).max() < 0.02


def test_the_thickness_across_a_cylinder_is_its_chord(tmp_path: Path) -> None:
    (view,) = load_views(write(tmp_path / "water.nii", cylinder(40.0, 0.0)), count=1, seed=3)
    row = view[len(view) // 2]
    offset_mm = (np.arange(len(row)) - (len(row) - 1) / 2) * 0.3125
    inner = np.abs(offset_mm) < 34
    chord = 2 * np.sqrt(40.0**2 - offset_mm[inner] ** 2)
    np.testing.assert_allclose(row[inner], chord * WATER_PER_MM, rtol=0.08)


def test_bone_attenuates_more_than_its_hounsfield_units_say(tmp_path: Path) -> None:
    (view,) = load_views(write(tmp_path / "bone.nii", cylinder(30.0, 1000.0)), count=1, seed=4)
    row = view[len(view) // 2]
    assert row[len(row) // 2 - 20 : len(row) // 2 + 20].mean() > 1.3 * 2 * 60 * WATER_PER_MM


def test_equal_seeds_give_equal_views_and_others_do_not(tmp_path: Path) -> None:
    path = write(tmp_path / "bone.nii", cylinder(30.0, 700.0))
    first, again, other = (load_views(path, count=2, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("size", [64, 200])
def test_windows_have_the_size_asked_for_and_usual_values(tmp_path: Path, size: int) -> None:
    views = load_views(write(tmp_path / "body.nii", cylinder(45.0, 60.0)), count=6, seed=0)
    for seed, view in enumerate(views):
        image = crop_view(np.random.default_rng(seed), view, size)
        assert image.shape == (size, size)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert 0 <= image.min() <= image.max() <= 6


def test_a_window_depends_on_its_generator_alone() -> None:
    view = np.random.default_rng(0).uniform(1, 3, (300, 400)).astype(np.float32)
    images = [crop_view(np.random.default_rng(seed), view, 96) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_windows_look_at_the_structure_rather_than_at_air() -> None:
    view = np.zeros((400, 1600), np.float32)
    view[:, 100:500] = 2 + np.random.default_rng(0).uniform(0, 1, (400, 400))
    windows = [crop_view(np.random.default_rng(seed), view, 64) for seed in range(40)]
    seen = np.mean([(window > 0.5).mean() for window in windows])
    assert seen > 0.4  # a quarter of the view


def test_a_file_that_is_no_volume_is_refused_with_its_name(tmp_path: Path) -> None:
    flat = tmp_path / "flat.nii"
    nib.save(nib.Nifti1Image(np.zeros((20, 20), np.int16), np.eye(4)), flat)
    with pytest.raises(FrameError, match=r"flat\.nii must have three axes"):
        load_views(flat, count=1, seed=0)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no volume")
    with pytest.raises(FrameError, match=r"broken\.nii\.gz cannot be read"):
        load_views(broken, count=1, seed=0)
    with pytest.raises(FrameError, match="cannot be read"):
        load_views(tmp_path / "absent.nii", count=1, seed=0)


def test_what_is_no_ct_in_hounsfield_units_of_a_body_is_refused(tmp_path: Path) -> None:
    water = cylinder(40.0, 0.0)
    mask = write(tmp_path / "mask.nii", (water == 0).astype(np.int16))
    with pytest.raises(FrameError, match=r"mask\.nii must be in Hounsfield units.*value is 0"):
        load_views(mask, count=1, seed=0)
    for voxel_mm in (0.02, 2000.0):
        path = write(tmp_path / "size.nii", water, voxel_mm)
        with pytest.raises(FrameError, match=r"size\.nii must be 20 to 2500 mm a side"):
            load_views(path, count=1, seed=0)
    colors = np.zeros((9, 9, 9), np.dtype([(c, np.uint8) for c in "RGB"]))
    nib.save(nib.Nifti1Image(colors, np.eye(4)), tmp_path / "colors.nii")
    with pytest.raises(FrameError, match=r"colors\.nii cannot be read"):
        load_views(tmp_path / "colors.nii", count=1, seed=0)


def test_voxels_without_a_value_count_as_air(tmp_path: Path) -> None:
    air = cylinder(30.0, 500.0).astype(np.float32)
    holes = np.where(air == AIR, np.nan, air)
    holes[:2] = AIR
    paths = (write(tmp_path / f"{i}.nii", v) for i, v in enumerate((air, holes)))
    one, two = (load_views(path, count=1, seed=4)[0] for path in paths)
    np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_a_real_ct_shows_crisp_bone(shared_data: Path) -> None:
    views = load_views(shared_data / "ct" / "skull.nii.gz", count=2, seed=0)
    assert all(3 < view.max() < 15 for view in views)
    window = crop_view(np.random.default_rng(0), views[0], 512)
    assert window.std() > 0.1
