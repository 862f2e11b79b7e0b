# SPDX-License-Identifier: Apache-2.0
"""Any frame to the network's fixed-size grey image, and results back; the same for all runtimes.

The image is scaled by one factor until it fits, centered, and padded with its own border. Pixel
centers are at integer coordinates, so input and network coordinates are related by
    x_network = (x_input + 0.5) * scale_x - 0.5 + pad_x        (the same for y)
where scale_x and scale_y differ only by the rounding of the content to whole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import FrameError
from fedefm_core.frames import Frame, to_grey8
from fedefm_core.perception.types import FloatArray, LabelMap


@dataclass(frozen=True)
class Letterbox:
    """Where the input image lies in the network's image; all sizes (height, width).

    offset: (row, column) of the content's first pixel in the network's image.
    """

    input_size: tuple[int, int]
    network_size: tuple[int, int]
    content_size: tuple[int, int]
    offset: tuple[int, int]

    @property
    def scale(self) -> FloatArray:
        """(2,) network pixels per input pixel along x, y."""
        return np.array(
            [
                self.content_size[1] / self.input_size[1],
                self.content_size[0] / self.input_size[0],
            ]
        )

    def to_network(self, points: FloatArray) -> FloatArray:
        """(..., 2) x, y in input pixels to network pixels."""
        return (points + 0.5) * self.scale - 0.5 + np.array(self.offset[::-1], dtype=np.float64)

    def to_input(self, points: FloatArray) -> FloatArray:
        """(..., 2) x, y in network pixels to input pixels."""
        return (points + 0.5 - np.array(self.offset[::-1], dtype=np.float64)) / self.scale - 0.5

    def covariance_to_input(self, covariance: FloatArray) -> FloatArray:
        """(2, 2) in network px² to input px²."""
        return covariance / np.outer(self.scale, self.scale)

    def content(self, network_image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """View of the part of network_image (H, W) that shows the input."""
        (top, left), (height, width) = self.offset, self.content_size
        return np.asarray(network_image[top : top + height, left : left + width])

    def label_map_to_input(self, label_map: LabelMap) -> LabelMap:
        """Copy of the network's label map in the input's size, nearest neighbor."""
        content = self.content(label_map)
        if self.content_size == self.input_size:
            return np.array(content)
        height, width = self.input_size
        resized = cv2.resize(content, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return np.asarray(resized, dtype=np.uint8).reshape(height, width)


def fit(input_size: tuple[int, int], network_size: tuple[int, int]) -> Letterbox:
    """Letterbox that centers an input of input_size (height, width) in network_size."""
    scale = min(n / i for n, i in zip(network_size, input_size, strict=True))
    height, width = (
        max(1, min(n, round(i * scale))) for n, i in zip(network_size, input_size, strict=True)
    )
    offset = ((network_size[0] - height) // 2, (network_size[1] - width) // 2)
    return Letterbox(input_size, network_size, (height, width), offset)


def preprocess(
    frame: Frame, network_size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], Letterbox]:
    """Grey image (H, W) uint8 of network_size, C-contiguous, and how it maps to the frame.

    The frame's own pixels come back, uncopied, when they fit as they are. Raises FrameError for
    a frame that is not a two-dimensional image with at least one pixel.
    """
    if frame.pixels.ndim != 2 or frame.pixels.size == 0:
        raise FrameError(
            f"A frame must be a (height, width) image with at least one pixel "
            f"(got shape {frame.pixels.shape} from {frame.source or 'an unnamed source'})"
        )
    grey = to_grey8(frame)
    letterbox = fit((grey.shape[0], grey.shape[1]), network_size)
    if letterbox.input_size == network_size:
        return np.ascontiguousarray(grey), letterbox
    return _scale_and_pad(grey, letterbox), letterbox


def _scale_and_pad(grey: npt.NDArray[np.uint8], box: Letterbox) -> npt.NDArray[np.uint8]:
    height, width = box.content_size
    if box.content_size != box.input_size:
        shrinks = height < box.input_size[0] or width < box.input_size[1]
        grey = np.asarray(
            cv2.resize(
                grey,
                (width, height),
                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
            ),
            dtype=np.uint8,
        ).reshape(height, width)
    top, left = box.offset
    bottom, right = box.network_size[0] - height - top, box.network_size[1] - width - left
    if not any((top, bottom, left, right)):
        return np.ascontiguousarray(grey)
    return np.pad(grey, ((top, bottom), (left, right)), mode="edge")
