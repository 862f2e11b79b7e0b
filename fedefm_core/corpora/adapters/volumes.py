# SPDX-License-Identifier: Apache-2.0
"""Volumes and stacks, a sample a slice: Medical Decathlon, VESSEL12 and SenNet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fedefm_core.corpora.adapters.folders import SPLIT_NAMES, files, found, subfolders
from fedefm_core.corpora.reading import class_values, foreground, mask_frames
from fedefm_core.corpora.records import DataSet, Record, Split
from fedefm_core.errors import ManifestError

_VESSEL12_NAME = re.compile(r"VESSEL12_\d+")
_VESSELS = ("background", "vessel")
_STACK_SUFFIXES = (".tif", ".tiff")


def decathlon(path: Path) -> DataSet:
    """dataset.json of a task of the Medical Segmentation Decathlon, imagesTr, labelsTr, imagesTs.

    Volumes of three axes only. Mask values are those that dataset.json names.
    """
    index = path / "dataset.json"
    try:
        content = json.loads(index.read_text())
        training = [(path / item["image"], path / item["label"]) for item in content["training"]]
        test = [path / _test_name(item) for item in content.get("test", [])]
        labels = {int(value): str(name) for value, name in content["labels"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{index} must be the index of a Medical Decathlon task "
            f"({type(error).__name__}: {error})"
        ) from error
    records = [
        Record(image, image.name, "train", partial(mask_frames, mask, class_values), (mask,))
        for image, mask in training
    ]
    records += [Record(image, image.name, "test") for image in test if image.is_file()]
    names = tuple(labels.get(value, str(value)) for value in range(max(labels, default=0) + 1))
    return DataSet(found(records, path, "dataset.json with 'training'"), names)


def _test_name(item: Any) -> str:
    return str(item["image"] if isinstance(item, dict) else item)


def vessel12(path: Path) -> DataSet:
    """VESSEL12_01.mhd and .raw, in path or in folders up to two deep, as the archives unpack.

    The lung masks are left aside: they mask no vessels. The annotations are single points, so
    there are no label maps.
    """
    scans: dict[str, Record] = {}
    for scan in sorted((*path.glob("*.mhd"), *path.glob("*/*.mhd"), *path.glob("*/*/*.mhd"))):
        is_mask = any("lungmask" in part.lower() for part in scan.relative_to(path).parts)
        if _VESSEL12_NAME.fullmatch(scan.stem) and not is_mask:
            scans.setdefault(scan.stem, Record(scan, group=scan.stem))
    records = [scans[name] for name in sorted(scans)]
    return DataSet(found(records, path, "VESSEL12_01.mhd with VESSEL12_01.raw"), ("background",))


def sennet(path: Path) -> DataSet:
    """train/kidney_1_dense/images/0000.tif with labels/0000.tif, test/kidney_5/images.

    A folder with labels alone, as kidney_3_dense, has its images in the one named ..._sparse,
    whose own labels then give way. Parts of one kidney are one group.
    """
    records: list[Record] = []
    for half in subfolders(path):
        split = SPLIT_NAMES.get(half.name.lower())
        if split is not None:
            stacks = subfolders(half)
            dense = {stack.name for stack in stacks if not (stack / "images").is_dir()}
            for stack in stacks:
                records += _sennet_slices(stack, split, dense)
    return DataSet(found(records, path, "train/kidney_1_dense/images/0000.tif"), _VESSELS)


def _sennet_slices(stack: Path, split: Split, dense: set[str]) -> Iterator[Record]:
    """Slices of one folder; masks of its own, or of its denser twin where that has them."""
    twin = stack.name.replace("sparse", "dense")
    labels = stack / "labels"
    twin_labels = stack.parent / twin / "labels" if twin in dense else labels
    group = "_".join(stack.name.split("_")[:2])
    for image in files(stack / "images", _STACK_SUFFIXES):
        found_masks = [f for f in (twin_labels / image.name, labels / image.name) if f.is_file()]
        if not found_masks:
            yield Record(image, group, split)
            continue
        masks = partial(mask_frames, found_masks[0], foreground)
        yield Record(image, group, split, masks, (found_masks[0],))
