# SPDX-License-Identifier: Apache-2.0
"""Procedural backgrounds: everything in the beam that is not a catheter or a guidewire."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedefm_core.simulation.animal import animal
from fedefm_core.simulation.detector import wide_blur
from fedefm_core.simulation.human import human
from fedefm_core.simulation.phantom import phantom
from fedefm_core.simulation.rendering import rendering
from fedefm_core.simulation.settings import IngredientSettings
from fedefm_core.simulation.textures import Image, Rng
from fedefm_core.simulation.vessels import random_vessels


def background(
    rng: Rng,
    kind: str,
    size: int,
    scale: float,
    ingredients: IngredientSettings | None = None,
) -> Image:
    """(size, size) line integrals of attenuation of a random scene of one of the four kinds.

    scale: pixels of this image for each pixel of a 512-pixel one. Values are dimensionless,
    mostly 0.5 to 4.
    """
    ingredients = ingredients or IngredientSettings()
    image = _PAINTERS[kind](rng, size, scale, ingredients.foreign_bodies)
    if not ingredients.anatomy:
        image = wide_blur(image, _COARSE)
    # Drawn even if they are left out: the random numbers after them stay the same.
    vessels = random_vessels(rng, kind, size, scale)
    if vessels is None or not ingredients.vessels:
        return image
    return np.asarray(image + vessels, np.float32)


def _rendering(rng: Rng, size: int, scale: float, _: bool) -> Image:
    """Renderings hold no foreign bodies."""
    return rendering(rng, size, scale)


_COARSE = 0.15  # of the side: sigma that leaves no more than shading
_PAINTERS: dict[str, Callable[[Rng, int, float, bool], Image]] = {
    "human": human,
    "animal": animal,
    "phantom": phantom,
    "simulation": _rendering,
}
