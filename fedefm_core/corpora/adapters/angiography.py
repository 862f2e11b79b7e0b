# SPDX-License-Identifier: Apache-2.0
"""ARCADE: coronary angiograms with vessel segments as polygons (Popov et al., Scientific Data
2024). The catheters in them are not labelled."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.adapters.folders import (
    SPLIT_NAMES,
    STILL_SUFFIXES,
    files,
    found,
    subfolders,
)
from fedefm_core.corpora.records import DataSet, Mask, Record
from fedefm_core.errors import ManifestError, TruthError

VESSELS = ("background", "vessel")
_STENOSIS = "stenosis"
_STENOSIS_ROW = 25  # its class in the text layout
_SUB_PIXEL_BITS = 4

Polygon = npt.NDArray[np.float64]  # (N, 2) x, y


def arcade(path: Path) -> DataSet:
    """The vessels of ARCADE: 'syntax' as published, or images/ with labels/ in text rows.

    As published: {train,val,test}/images/1.png with annotations/train.json (COCO).
    In text: images/val_1.png with labels/val_1.txt, rows 'class x1 y1 x2 y2 ...' in fractions.
    """
    root = path / "syntax" if (path / "syntax").is_dir() else path
    if (root / "labels").is_dir():
        records = [_text_record(image, root) for image in files(root / "images", STILL_SUFFIXES)]
    else:
        records = [record for folder in subfolders(root) for record in _coco_records(folder)]
    expected = "syntax/train/images/*.png with syntax/train/annotations/train.json"
    return DataSet(found(records, path, expected), VESSELS)


def _coco_records(folder: Path) -> Iterator[Record]:
    split = SPLIT_NAMES.get(folder.name.lower())
    images = files(folder / "images", STILL_SUFFIXES)
    annotations = files(folder / "annotations", (".json",))
    if split is None or not images:
        return
    polygons = _coco_polygons(annotations[0]) if annotations else {}
    for image in images:
        group = f"{folder.name}/{image.stem}"
        if not annotations:
            yield Record(image, group, split)
            continue
        masks = partial(_draw, polygons.get(image.name, ()))
        yield Record(image, group, split, masks, (annotations[0],))


def _coco_polygons(path: Path) -> Mapping[str, Sequence[Polygon]]:
    """Outlines of vessels in pixels, by file name. Raises ManifestError."""
    try:
        content = json.loads(path.read_text())
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        kinds = {kind["id"]: str(kind["name"]) for kind in content["categories"]}
        polygons: dict[str, list[Polygon]] = defaultdict(list)
        for entry in content["annotations"]:
            if kinds[entry["category_id"]] != _STENOSIS:
                polygons[names[entry["image_id"]]] += _flat_polygons(entry["segmentation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path} is no COCO file of polygons: {type(error).__name__}: {error}"
        ) from error
    return polygons


def _flat_polygons(segmentation: Any) -> Iterator[Polygon]:
    for flat in segmentation:
        yield np.asarray(flat, np.float64).reshape(-1, 2)


def _text_record(image: Path, root: Path) -> Record:
    prefix, _, _ = image.stem.partition("_")
    split = SPLIT_NAMES.get(prefix.lower())
    rows = root / "labels" / f"{image.stem}.txt"
    if not rows.is_file():
        return Record(image, image.stem, split)
    return Record(image, image.stem, split, partial(_draw_rows, rows), (rows,))


def _draw_rows(path: Path, shape: tuple[int, int]) -> Iterator[Mask]:
    scale = np.array([shape[1], shape[0]], np.float64)
    polygons = []
    try:
        for row in path.read_text().splitlines():
            kind, *numbers = row.split()
            if int(kind) != _STENOSIS_ROW:
                polygons.append(np.array(numbers, np.float64).reshape(-1, 2) * scale)
    except (OSError, ValueError) as error:
        raise TruthError(f"{path}: a row must be 'class x1 y1 x2 y2 ...' ({error})") from error
    yield from _draw(polygons, shape)


def _draw(polygons: Sequence[Polygon], shape: tuple[int, int]) -> Iterator[Mask]:
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:
        # COCO counts from the corner of the first pixel, OpenCV from its centre.
        points = np.rint((polygon - 0.5) * 2**_SUB_PIXEL_BITS).astype(np.int32)
        cv2.fillPoly(mask, [points], 1, shift=_SUB_PIXEL_BITS)
    yield mask
