# SPDX-License-Identifier: Apache-2.0
"""What an adapter tells of a data set: its files, what belongs together, and where masks are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Mask = npt.NDArray[np.uint8]
MaskReader = Callable[[tuple[int, int]], Iterator[Mask]]  # (H, W) of the image -> a mask a frame


@dataclass(frozen=True)
class Record:
    """One image file; a volume or cine gives a sample a frame.

    group: what one patient, eye pair or cine is called; never divided between splits or silos.
    split: the data set's own division, None where it has none.
    masks: reads the label maps of all frames in order; None where there are none.
    mask_files: what masks reads, so that a change of them is noticed.
    """

    path: Path
    group: str
    split: Split | None = None
    masks: MaskReader | None = None
    mask_files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """records: in a fixed order. mask_classes: names of the values in masks, background first."""

    records: Sequence[Record]
    mask_classes: tuple[str, ...]
