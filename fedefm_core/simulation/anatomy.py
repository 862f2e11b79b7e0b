# SPDX-License-Identifier: Apache-2.0
"""Procedural backgrounds: everything in the beam that is not a catheter or a guidewire."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedefm_core.simulation.animal import animal
from fedefm_core.simulation.human import human
from fedefm_core.simulation.phantom import phantom
from fedefm_core.simulation.rendering import rendering
from fedefm_core.simulation.textures import Image, Rng
from fedefm_core.simulation.vessels import random_vessels


def background(rng: Rng, kind: str, size: int, scale: float) -> Image:
    """(size, size) line integrals of attenuation of a random scene of one of the four kinds.

    scale: pixels of this image for each pixel of a 512-pixel one. Values are dimensionless,
    mostly 0.5 to 4.
    """
    image = _PAINTERS[kind](rng, size, scale)
    vessels = random_vessels(rng, kind, size, scale)
    return image if vessels is None else np.asarray(image + vessels, np.float32)


_PAINTERS: dict[str, Callable[[Rng, int, float], Image]] = {
    "human": human,
    "animal": animal,
    "phantom": phantom,
    "simulation": rendering,
}
