# SPDX-License-Identifier: Apache-2.0
"""Corpora that need no files: drawn by the simulator, or by a stand-in, from a seed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import resources

import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.records import Mask
from fedefm_core.corpora.standins import draw_angiogram, draw_retina
from fedefm_core.frames import to_grey8
from fedefm_core.perception.types import CLASS_NAMES
from fedefm_core.simulation import KINDS, SimulationSettings, simulate_frame

Grey = npt.NDArray[np.uint8]
Draw = Callable[[int, int, int], tuple[Grey, Mask]]  # seed, index, size -> (size, size) each


def _draw_kind(kind: str, seed: int, index: int, size: int) -> tuple[Grey, Mask]:
    frame = simulate_frame(seed, index, SimulationSettings(size=size), kind)
    return np.asarray(to_grey8(frame.frame)), frame.label_map


_INSTRUMENTS = tuple(CLASS_NAMES)
_VESSELS = ("background", "vessel")
SIMULATED: Mapping[str, tuple[Draw, tuple[str, ...]]] = {  # name: (draw, classes of its masks)
    **{f"simulated:{kind}": (partial(_draw_kind, kind), _INSTRUMENTS) for kind in KINDS},
    "simulated:angiography": (draw_angiogram, _VESSELS),
    "simulated:retina": (draw_retina, _VESSELS),
}


def draw_simulated(name: str, seed: int, index: int, size: int) -> tuple[Grey, Mask]:
    """Image and label map of sample index, both (size, size) uint8; equal arguments, equal bytes.

    name: a key of SIMULATED. Each name draws from a stream of its own, so that no two corpora
    show the same scene.
    """
    draw, _ = SIMULATED[name]
    return draw(zlib.crc32(f"{seed} {name}".encode()), index, size)


@cache
def drawing_version() -> str:
    """Hash of the code that draws: images of another version are drawn anew, not taken from a
    cache."""
    digest = hashlib.sha256()
    simulation = resources.files("fedefm_core.simulation").iterdir()
    for file in sorted(simulation, key=lambda file: file.name):
        if file.name.endswith(".py"):
            digest.update(file.read_bytes())
    for module in ("simulated.py", "standins.py"):
        digest.update((resources.files("fedefm_core.corpora") / module).read_bytes())
    return digest.hexdigest()
