# SPDX-License-Identifier: Apache-2.0
"""The small interface that every inference runtime offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fedefm_core.perception.metadata import ModelMetadata

IMAGE = "image"  # the graph's input
OUTPUTS = ("label_map", "probability", "tip_heatmap")  # and outputs, as in NetworkOutput


@dataclass(frozen=True)
class NetworkOutput:
    """The graph's outputs without the batch axis; see ModelMetadata for their meaning.

    label_map: (H, W) uint8. probability: (H, W) uint8. tip_heatmap: (2, H/4, W/4) float32.
    Arrays may be views into the runtime's buffers: valid until the next call of infer.
    """

    label_map: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.uint8]
    tip_heatmap: npt.NDArray[np.float32]


class Runtime(Protocol):
    """A loaded model, ready to run on one fixed-size image at a time.

    skipped_runtimes: the runtimes that 'auto' preferred but could not use, with the reason.
    warnings: the reasons of those of them that are installed: somebody meant to use them.
    """

    name: str
    metadata: ModelMetadata
    skipped_runtimes: Mapping[str, str]
    warnings: Sequence[str]

    def infer(self, image: npt.NDArray[np.uint8]) -> NetworkOutput:
        """Run the network on image: (H, W) uint8, C-contiguous, of metadata.input_size."""
        ...


@runtime_checkable
class OverlappingRuntime(Runtime, Protocol):
    """A runtime that begins with an image while the results of the one before are still read."""

    def submit(self, image: npt.NDArray[np.uint8]) -> None:
        """Start on image, as for infer, and return at once; at most two may be under way."""
        ...

    def result(self) -> NetworkOutput:
        """Wait for the oldest image under way. Valid until two more are submitted."""
        ...
