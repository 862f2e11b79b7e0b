# SPDX-License-Identifier: Apache-2.0
"""Views of a pig on the table of a laboratory: slender bones close together, much gas."""

from __future__ import annotations

import numpy as np

from fedefm_core.simulation.bones import add_long_bones, add_ribs
from fedefm_core.simulation.draws import log_uniform
from fedefm_core.simulation.foreign_bodies import add_foreign_bodies
from fedefm_core.simulation.outlines import Image, Rng
from fedefm_core.simulation.pelvis import add_pelvis
from fedefm_core.simulation.soft_tissue import (
    add_bowel_gas,
    add_diaphragm,
    add_folds,
    add_lung,
    add_silhouette,
    add_skin,
    add_stomach,
    tissue,
)
from fedefm_core.simulation.spine import add_spine
from fedefm_core.simulation.textures import warped


def animal(rng: Rng, size: int, scale: float, foreign_bodies: bool = True) -> Image:
    """(size, size) attenuation of a random part of the trunk, lying in any direction."""
    unit = scale * log_uniform(rng, 0.6, 1.9)
    image = tissue(rng, size, rng.uniform(1.0, 2.2), rng.uniform(0.03, 0.18))
    angle = float(rng.choice([0.0, np.pi / 2], p=(0.6, 0.4))) + rng.normal(0, 0.2)
    if rng.random() < 0.8:
        period = rng.uniform(28, 60) * unit
        add_spine(rng, image, unit * 0.8, period, angle, _strength(rng))
    chest = rng.random() < 0.55
    if chest:
        _add_chest(rng, image, unit)
    else:
        _add_belly(rng, image, unit)
    image = warped(rng, image, rng.uniform(0, 4) * scale, rng.uniform(50, 150) * scale)
    if rng.random() < 0.3:
        add_folds(rng, image, int(rng.integers(1, 3)))
    add_foreign_bodies(rng, image if foreign_bodies else image.copy(), unit, frequency=0.8)
    if rng.random() < 0.12:
        add_skin(rng, image)
    return np.asarray(np.maximum(image, 0.05), np.float32)


def _strength(rng: Rng) -> float:
    return log_uniform(rng, 0.12, 0.8)


def _add_chest(rng: Rng, image: Image, unit: float) -> None:
    size = len(image)
    if rng.random() < 0.7:
        add_lung(rng, image, unit, rng.uniform(0.15, 0.7))
    add_silhouette(
        rng, image, rng.uniform(0.2, 0.6) * size, rng.uniform(0.1, 0.5), rng.uniform(1, 8)
    )
    spacing = rng.uniform(26, 60) * unit
    add_ribs(rng, image, unit, spacing, spacing * rng.uniform(0.18, 0.4), 0.6 * _strength(rng))
    if rng.random() < 0.5:
        add_diaphragm(rng, image, rng.uniform(0.15, 0.7), rng.uniform(0.8, 4))


def _add_belly(rng: Rng, image: Image, unit: float) -> None:
    for _ in range(int(rng.integers(1, 3))):
        add_bowel_gas(rng, image, unit, rng.uniform(0.1, 0.7))
    if rng.random() < 0.3:
        add_stomach(rng, image, unit, rng.uniform(0.2, 0.6))
    if rng.random() < 0.3:
        spacing = rng.uniform(26, 60) * unit
        add_ribs(rng, image, unit, spacing, spacing * rng.uniform(0.18, 0.4), 0.5 * _strength(rng))
    if rng.random() < 0.2:
        add_pelvis(rng, image, unit, rng.uniform(110, 240) * unit, _strength(rng))
    if rng.random() < 0.15:
        add_long_bones(rng, image, unit * 0.7, _strength(rng))
