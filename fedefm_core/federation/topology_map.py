# SPDX-License-Identifier: Apache-2.0
"""A plain map: places of silos in degrees, its borders, and the courses of links on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedefm_core.federation.topology import Link
from fedefm_core.federation.underlays import Place

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, right, bottom, top

_MARGIN = 0.07  # of the extent of the map
_SPREAD = 0.007  # of the extent: how far silos of one place are set apart
_STEPS = (60.0, 30.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)  # of the grid, degrees


@dataclass(frozen=True)
class Map:
    """Longitude and latitude of each silo, and the borders; longitudes may lie below -180."""

    points: Mapping[str, Point]
    left: float
    right: float
    bottom: float
    top: float

    @property
    def width(self) -> float:
        """In degrees of longitude."""
        return self.right - self.left

    @property
    def stretch(self) -> float:
        """Length of a degree of latitude in degrees of longitude, in the middle of the map."""
        return 1 / math.cos(math.radians((self.bottom + self.top) / 2))

    @property
    def height_to_width(self) -> float:
        """Proportion of the map as it is drawn."""
        return self.stretch * (self.top - self.bottom) / self.width

    def meridians(self) -> npt.NDArray[np.float64]:
        """Longitudes of the grid."""
        return _grid(self.left, self.right, self._step)

    def parallels(self) -> npt.NDArray[np.float64]:
        """Latitudes of the grid."""
        return _grid(self.bottom, self.top, self._step)

    def courses(self, link: Link) -> list[tuple[Point, Point]]:
        """Return the straight lines that draw a link, the last of which ends at its target.

        One line, or two where the short way leads over a border of the map: one that leaves from
        the source, and one that comes in to the target.
        """
        (x, y), (to_x, to_y) = (self.points[silo] for silo in link)
        if abs(to_x - x) <= 180:
            return [((x, y), (to_x, to_y))]
        turn = math.copysign(360, to_x - x)
        return [((x, y), (to_x - turn, to_y)), ((x + turn, y), (to_x, to_y))]

    @property
    def _step(self) -> float:
        extent = max(self.width, self.top - self.bottom)
        return next((step for step in _STEPS if extent / step >= 4), _STEPS[-1])


def lay_out(places: Mapping[str, Place]) -> Map:
    """Make a map of places, cut where the widest gap between their longitudes is.

    Silos of one place are set around it.
    """
    longitudes = np.sort([longitude for _, longitude in places.values()])
    gaps = np.diff(longitudes, append=longitudes[0] + 360)
    cut = longitudes[np.argmax(gaps)]
    flat = {
        silo: (longitude - 360 if longitude > cut else longitude, latitude)
        for silo, (latitude, longitude) in places.items()
    }
    extent = max(np.ptp(np.array(list(flat.values())), axis=0))
    points = _spread(flat, _SPREAD * float(extent))
    margin = max(_MARGIN * float(extent), 0.02)
    (left, bottom), (right, top) = (
        choose(np.array(list(points.values())), axis=0) for choose in (np.min, np.max)
    )
    return Map(
        points,
        float(left) - margin,
        float(right) + margin,
        max(float(bottom) - margin, -89.0),
        min(float(top) + margin, 89.0),
    )


def city(silo: str) -> str:
    """Return the name of a silo without the number that tells routers of one city apart."""
    return re.sub(r" \d+$", "", silo)


def fits(box: Box, taken: Sequence[Box], ground: Map) -> bool:
    """Tell whether a box lies on the map and overlaps none that is taken."""
    left, right, bottom, top = box
    inside = (
        ground.left < left and right < ground.right and ground.bottom < bottom and top < ground.top
    )
    return inside and not any(
        left < other[1] and other[0] < right and bottom < other[3] and other[2] < top
        for other in taken
    )


def _spread(points: Mapping[str, Point], radius: float) -> dict[str, Point]:
    together: dict[Point, list[str]] = {}
    for silo, point in points.items():
        together.setdefault(point, []).append(silo)
    spread = {}
    for silo, (x, y) in points.items():
        silos = together[x, y]
        angle = 2 * math.pi * silos.index(silo) / len(silos)
        reach = radius if len(silos) > 1 else 0.0
        spread[silo] = (x + reach * math.cos(angle), y + reach * math.sin(angle))
    return spread


def _grid(start: float, end: float, step: float) -> npt.NDArray[np.float64]:
    lines = np.arange(math.ceil(start / step), math.floor(end / step) + 1, dtype=np.float64)
    return step * lines
