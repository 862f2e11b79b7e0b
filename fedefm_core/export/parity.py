# SPDX-License-Identifier: Apache-2.0
"""Does an exported model still give the results of the model that it came from?

Measured on frames that neither training nor calibration has seen, on the outputs of the graph:

pixel drift        pixels whose label differs / all pixels
foreground drift   pixels whose label differs / foreground pixels of the reference. Background that
                   became an instrument and one instrument that became the other both count.
tip shift          distance of the peaks of the tip heat map, in network pixels, where both models
                   see a tip; tips that only one of them sees are counted apart
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedefm_core.errors import ParityError
from fedefm_core.export.onnx import Graph
from fedefm_core.perception.runtimes.base import NetworkOutput
from fedefm_core.perception.types import INSTRUMENT_KINDS, FloatArray

Image = npt.NDArray[np.uint8]
Infer = Callable[[Image], NetworkOutput]

TIP_SEEN = 0.5  # a heat map that peaks lower shows no tip
CELL_PX = 4.0  # network pixels a cell of the heat map
LIMITS = {  # by precision of the exported model: name of the measure, and what it may reach
    "fp32": ("pixel_drift", 1e-6),
    "fp16": ("foreground_drift", 0.005),
    "bf16": ("foreground_drift", 0.02),
    "int8": ("foreground_drift", 0.02),
}


@dataclass(frozen=True)
class Parity:
    """Differences of a candidate from its reference; see the module for the definitions."""

    reference: str
    candidate: str
    frames: int
    pixels: int
    differing_pixels: int
    foreground_pixels: int
    tips_in_both: int
    tips_lost: int
    tips_gained: int
    tip_shift_px_median: float | None  # None when no tip is seen by both
    tip_shift_px_max: float | None

    @property
    def pixel_drift(self) -> float:
        return self.differing_pixels / self.pixels

    @property
    def foreground_drift(self) -> float | None:
        """None when the reference sees no instrument in any frame."""
        return self.differing_pixels / self.foreground_pixels if self.foreground_pixels else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {
            "pixel_drift": self.pixel_drift,
            "foreground_drift": self.foreground_drift,
        }


def measure(
    reference: Infer, candidate: Infer, images: Iterable[Image], names: tuple[str, str]
) -> Parity:
    """Run both models on images, each (H, W) uint8 of the models' size, and compare.

    names: what the report calls reference and candidate. Raises ParityError without images.
    """
    frames = pixels = differing = foreground = lost = gained = 0
    shifts: list[float] = []
    for image in images:
        expected, expected_tips = _labels_and_tips(reference(image))
        found, found_tips = _labels_and_tips(candidate(image))
        frames += 1
        pixels += expected.size
        differing += int(np.count_nonzero(expected != found))
        foreground += int(np.count_nonzero(expected))
        for kind in INSTRUMENT_KINDS:
            here, there = expected_tips.get(kind), found_tips.get(kind)
            lost += here is not None and there is None
            gained += here is None and there is not None
            if here is not None and there is not None:
                shifts.append(float(np.linalg.norm(here - there)))
    if not frames:
        raise ParityError("Parity needs at least one image (got none)")
    return Parity(
        *names,
        frames=frames,
        pixels=pixels,
        differing_pixels=differing,
        foreground_pixels=foreground,
        tips_in_both=len(shifts),
        tips_lost=lost,
        tips_gained=gained,
        tip_shift_px_median=float(np.median(shifts)) if shifts else None,
        tip_shift_px_max=max(shifts, default=None),
    )


def enforce(parity: Parity, precision: str) -> None:
    """Raise ParityError when parity is worse than the limit for a model of this precision."""
    measure, limit = LIMITS[precision]
    value = getattr(parity, measure)
    name = measure.replace("_", " ")
    if value is None:
        raise ParityError(
            f"{parity.reference} finds no instrument in {parity.frames} frames, so the {name} of "
            f"{parity.candidate} is undefined. Is the network trained?"
        )
    if not value <= limit:
        raise ParityError(
            f"{parity.candidate} drifted from {parity.reference}: {name} {value:.3g} over "
            f"{parity.frames} frames, allowed {limit:.3g}"
        )


def table(parities: Iterable[Parity]) -> list[list[str]]:
    """Rows for printing: the header, then one comparison a row."""
    header = ["compared", "frames", "pixels", "foreground", "tip px median", "max", "lost", "new"]
    return [header, *(_row(parity) for parity in parities)]


def _row(parity: Parity) -> list[str]:
    return [
        f"{parity.candidate} with {parity.reference}",
        str(parity.frames),
        f"{parity.pixel_drift:.1e}",
        _text(parity.foreground_drift, ".2%"),
        _text(parity.tip_shift_px_median, ".3f"),
        _text(parity.tip_shift_px_max, ".2f"),
        str(parity.tips_lost),
        str(parity.tips_gained),
    ]


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def torch_reference(network: nn.Module) -> Infer:
    """The network itself, in eager float torch, as the reference of its export."""
    graph = Graph(network).eval()

    @torch.inference_mode()
    def infer(image: Image) -> NetworkOutput:
        outputs = graph(torch.from_numpy(image.copy())[None, None])
        return NetworkOutput(*(output[0].numpy() for output in outputs))

    return infer


def tip_peak(heatmap: npt.NDArray[np.float32]) -> FloatArray | None:
    """x, y in network pixels of the peak of a (H/4, W/4) heat map; None below TIP_SEEN.

    Sub-cell: the centroid of the 3x3 cells around the largest.
    """
    row, column = np.unravel_index(int(np.argmax(heatmap)), heatmap.shape)
    if heatmap[row, column] < TIP_SEEN:
        return None
    rows = np.arange(max(row - 1, 0), min(row + 2, heatmap.shape[0]))
    columns = np.arange(max(column - 1, 0), min(column + 2, heatmap.shape[1]))
    weights = heatmap[np.ix_(rows, columns)].astype(np.float64)
    cell: FloatArray = np.array([weights.sum(0) @ columns, weights.sum(1) @ rows]) / weights.sum()
    return np.asarray(CELL_PX * cell + (CELL_PX - 1.0) / 2.0)


def _labels_and_tips(
    output: NetworkOutput,
) -> tuple[npt.NDArray[np.uint8], dict[str, FloatArray]]:
    # copied: a runtime may hand out views that its next inference overwrites
    peaks = {k: tip_peak(output.tip_heatmap[i]) for i, k in enumerate(INSTRUMENT_KINDS)}
    return output.label_map.copy(), {k: p for k, p in peaks.items() if p is not None}
