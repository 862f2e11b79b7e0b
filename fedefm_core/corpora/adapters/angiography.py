# SPDX-License-Identifier: Apache-2.0
"""ARCADE: coronary angiograms with vessel segments as polygons (Popov et al., Scientific Data
2024). The catheters in them are not labelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.adapters.coco import fill, read_polygons
from fedefm_core.corpora.adapters.folders import (
    SPLIT_NAMES,
    STILL_SUFFIXES,
    files,
    found,
    subfolders,
)
from fedefm_core.corpora.records import DataSet, Mask, Record
from fedefm_core.errors import TruthError

VESSELS = ("background", "vessel")
_STENOSIS = "stenosis"
_STENOSIS_ROW = 25  # its class in the text layout

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
    _, classes, shapes = read_polygons(path)
    return {
        name: [polygon for value, polygon in outlines if classes[value] != _STENOSIS]
        for name, outlines in shapes.items()
    }


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
    yield fill([(VESSELS.index("vessel"), polygon) for polygon in polygons], shape)
