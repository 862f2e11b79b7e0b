# SPDX-License-Identifier: Apache-2.0
"""Fundus images with vessel masks: DRIVE and CHASE_DB1; the first observer's masks are used."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from fedefm_core.corpora.adapters.folders import SPLIT_NAMES, files, found, subfolders
from fedefm_core.corpora.reading import foreground, mask_frames
from fedefm_core.corpora.records import DataSet, Record, Split

VESSELS = ("background", "vessel")
_CHASE_NAME = re.compile(r"Image_(\d+)[LR]", re.IGNORECASE)
_CHASE_LAST_TRAINING_CHILD = 10  # the split in common use: 20 images train, the last 8 test


def drive(path: Path) -> DataSet:
    """training/images/21_training.tif with training/1st_manual/21_manual1.gif; test or testing."""
    records: list[Record] = []
    for folder in subfolders(path):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is not None:
            images = files(folder / "images", (".tif", ".tiff", ".png"))
            records += (_drive_record(image, folder, split) for image in images)
    return DataSet(found(records, path, "training/images/21_training.tif, test/images"), VESSELS)


def _drive_record(image: Path, folder: Path, split: Split) -> Record:
    number = image.name.partition("_")[0]
    masks = files(folder / "1st_manual", (f"{number}_manual1.gif", f"{number}_manual1.png"))
    return _record(image, number, split, masks[0] if masks else None)


def chase_db1(path: Path) -> DataSet:
    """Image_01L.jpg with Image_01L_1stHO.png; both eyes of a child are one group."""
    records = []
    for image in files(path, (".jpg", ".jpeg")):
        named = _CHASE_NAME.fullmatch(image.stem)
        if named:
            split: Split = "train" if int(named[1]) <= _CHASE_LAST_TRAINING_CHILD else "test"
            mask = path / f"{image.stem}_1stHO.png"
            records.append(_record(image, named[1], split, mask if mask.is_file() else None))
    return DataSet(found(records, path, "Image_01L.jpg, Image_01L_1stHO.png"), VESSELS)


def _record(image: Path, group: str, split: Split, mask: Path | None) -> Record:
    if mask is None:
        return Record(image, group, split)
    masks = partial(mask_frames, mask, foreground)
    return Record(image, group, split, masks, (mask,))
