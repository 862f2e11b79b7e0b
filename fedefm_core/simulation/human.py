# SPDX-License-Identifier: Apache-2.0
"""Views of a person: chest, heart, belly, pelvis, head, neck and limbs at any magnification."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedefm_core.simulation.bones import add_clavicle, add_long_bones, add_ribs
from fedefm_core.simulation.draws import log_uniform
from fedefm_core.simulation.foreign_bodies import add_foreign_bodies
from fedefm_core.simulation.outlines import Image, Rng
from fedefm_core.simulation.pelvis import add_pelvis
from fedefm_core.simulation.skull import add_skull
from fedefm_core.simulation.soft_tissue import (
    add_bowel_gas,
    add_calcifications,
    add_diaphragm,
    add_folds,
    add_lung,
    add_lung_markings,
    add_silhouette,
    add_skin,
    add_stomach,
    tissue,
)
from fedefm_core.simulation.spine import add_spine
from fedefm_core.simulation.textures import warped

_Region = Callable[[Rng, Image, float], None]


def human(rng: Rng, size: int, scale: float, foreign_bodies: bool = True) -> Image:
    """(size, size) attenuation of a random region of the body."""
    unit = scale * log_uniform(rng, 0.55, 2.2)
    image = tissue(rng, size, rng.uniform(1.6, 3.2), rng.uniform(0.03, 0.22))
    region = _REGIONS[int(rng.choice(len(_REGIONS), p=_CHANCES))]
    region(rng, image, unit)
    image = warped(rng, image, rng.uniform(0, 5) * scale, rng.uniform(50, 150) * scale)
    if rng.random() < 0.35:
        add_folds(rng, image, int(rng.integers(1, 3)))
    if rng.random() < 0.15:
        add_calcifications(rng, image, unit)
    add_foreign_bodies(rng, image if foreign_bodies else image.copy(), unit)
    if rng.random() < 0.1:
        add_skin(rng, image)
    return np.asarray(np.maximum(image, 0.05), np.float32)


def bone_strength(rng: Rng) -> float:
    """Attenuation of a bone over the tissue around it, from barely seen to dominant."""
    return log_uniform(rng, 0.15, 1.3)


def _heart(rng: Rng, image: Image, unit: float) -> None:
    """The heart in any of the oblique views of a coronary angiogram."""
    size = len(image)
    for _ in range(int(rng.integers(1, 3))):
        add_silhouette(
            rng, image, rng.uniform(0.4, 1.2) * size, rng.uniform(0.1, 0.7), rng.uniform(1.5, 10)
        )
    if rng.random() < 0.6:
        add_diaphragm(rng, image, rng.uniform(0.2, 1.2), rng.uniform(0.8, 5))
    if rng.random() < 0.6:
        add_lung(rng, image, unit, rng.uniform(0.2, 0.8))
    if rng.random() < 0.75:
        add_spine(
            rng,
            image,
            unit,
            rng.uniform(60, 120) * unit,
            rng.normal(0, 0.2),
            0.6 * bone_strength(rng),
        )
    if rng.random() < 0.75:
        add_ribs(
            rng,
            image,
            unit,
            rng.uniform(55, 130) * unit,
            rng.uniform(12, 34) * unit,
            0.35 * bone_strength(rng),
        )


def _chest(rng: Rng, image: Image, unit: float) -> None:
    unit *= 0.7
    add_lung(rng, image, unit, rng.uniform(0.4, 1.2))
    if rng.random() < 0.5:
        add_lung(rng, image, unit, rng.uniform(0.4, 1.2))
    add_silhouette(
        rng, image, rng.uniform(0.3, 0.8) * len(image), rng.uniform(0.2, 0.8), rng.uniform(1, 6)
    )
    if rng.random() < 0.7:
        add_spine(
            rng, image, unit, rng.uniform(50, 90) * unit, rng.normal(0, 0.12), bone_strength(rng)
        )
    add_ribs(
        rng,
        image,
        unit,
        rng.uniform(50, 110) * unit,
        rng.uniform(11, 28) * unit,
        0.5 * bone_strength(rng),
    )
    if rng.random() < 0.4:
        add_clavicle(rng, image, unit, bone_strength(rng))
    if rng.random() < 0.4:
        add_diaphragm(rng, image, rng.uniform(0.3, 1.2), rng.uniform(0.8, 4))


def _belly(rng: Rng, image: Image, unit: float) -> None:
    size = len(image)
    if rng.random() < 0.85:
        add_spine(
            rng, image, unit, rng.uniform(70, 120) * unit, rng.normal(0, 0.12), bone_strength(rng)
        )
    if rng.random() < 0.35:
        add_ribs(
            rng,
            image,
            unit,
            rng.uniform(60, 120) * unit,
            rng.uniform(12, 26) * unit,
            0.4 * bone_strength(rng),
        )
    for _ in range(int(rng.integers(0, 3))):
        add_silhouette(
            rng, image, rng.uniform(0.15, 0.6) * size, rng.uniform(-0.2, 0.4), rng.uniform(1.5, 8)
        )
    if rng.random() < 0.8:
        add_bowel_gas(rng, image, unit, rng.uniform(0.1, 0.8))
    if rng.random() < 0.25:
        add_stomach(rng, image, unit, rng.uniform(0.2, 0.8))


def _hips(rng: Rng, image: Image, unit: float) -> None:
    add_pelvis(rng, image, unit, rng.uniform(140, 300) * unit, bone_strength(rng))
    if rng.random() < 0.5:
        add_spine(
            rng, image, unit, rng.uniform(80, 110) * unit, rng.normal(0, 0.1), bone_strength(rng)
        )
    if rng.random() < 0.5:
        add_bowel_gas(rng, image, unit, rng.uniform(0.1, 0.5))
    if rng.random() < 0.3:  # the bladder, often full of contrast medium
        add_silhouette(
            rng, image, rng.uniform(40, 110) * unit, rng.uniform(0.1, 1.2), rng.uniform(1, 3)
        )


def _head(rng: Rng, image: Image, unit: float) -> None:
    add_skull(rng, image, unit, rng.uniform(130, 300) * unit, bone_strength(rng))
    if rng.random() < 0.3:
        add_spine(
            rng, image, unit, rng.uniform(35, 60) * unit, rng.normal(0, 0.2), bone_strength(rng)
        )


def _neck(rng: Rng, image: Image, unit: float) -> None:
    add_spine(
        rng, image, unit, rng.uniform(35, 70) * unit, rng.normal(0, 0.15), bone_strength(rng)
    )
    add_clavicle(rng, image, unit, bone_strength(rng))
    if rng.random() < 0.5:
        add_clavicle(rng, image, unit, bone_strength(rng))
    if rng.random() < 0.6:
        add_ribs(
            rng,
            image,
            unit,
            rng.uniform(40, 80) * unit,
            rng.uniform(10, 22) * unit,
            0.5 * bone_strength(rng),
        )
    if rng.random() < 0.5:  # the windpipe, or a breathing tube's air
        add_silhouette(rng, image, 60 * unit, -rng.uniform(0.1, 0.5), rng.uniform(1, 3))
    if rng.random() < 0.4:
        add_lung_markings(rng, image, unit)


def _limb(rng: Rng, image: Image, unit: float) -> None:
    image -= np.float32(rng.uniform(0.2, 1.2))
    add_long_bones(rng, image, unit, bone_strength(rng))
    add_folds(rng, image, int(rng.integers(0, 3)))
    if rng.random() < 0.4:
        add_skin(rng, image)


def _soft(rng: Rng, image: Image, unit: float) -> None:
    """Hardly anything but soft tissue."""
    for _ in range(int(rng.integers(1, 4))):
        add_silhouette(
            rng,
            image,
            rng.uniform(0.2, 0.9) * len(image),
            rng.uniform(-0.5, 0.5),
            rng.uniform(0.8, 12),
        )
    if rng.random() < 0.4:
        add_lung_markings(rng, image, unit)


_REGIONS: list[_Region] = [_heart, _chest, _belly, _hips, _head, _neck, _limb, _soft]
_CHANCES = (0.27, 0.13, 0.17, 0.13, 0.1, 0.07, 0.07, 0.06)
