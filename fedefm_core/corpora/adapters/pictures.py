# SPDX-License-Identifier: Apache-2.0
"""Any folder of images, with or without masks of the same name beside it.

    PATH/images/NAME.*  PATH/masks/NAME.png      as 'fedefm_core simulate' writes them, or
    PATH/*                                        images alone

Masks: 0 background, 1 catheter, 2 guidewire.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedefm_core.corpora.adapters.folders import found
from fedefm_core.corpora.reading import class_values, mask_frames
from fedefm_core.corpora.records import DataSet, Record
from fedefm_core.frames.source import image_files
from fedefm_core.perception.types import CLASS_NAMES


def pictures(path: Path) -> DataSet:
    """Each file, of any format that a reader takes, is a group of its own."""
    folder = path / "images" if (path / "images").is_dir() else path
    records = [
        _record(image, path / "masks" / f"{image.stem}.png") for image in image_files(folder)
    ]
    return DataSet(found(records, path, "images/*, or image files"), tuple(CLASS_NAMES))


def _record(image: Path, mask: Path) -> Record:
    if not mask.is_file():
        return Record(image, group=image.name)
    masks = partial(mask_frames, mask, class_values)
    return Record(image, group=image.name, masks=masks, mask_files=(mask,))
