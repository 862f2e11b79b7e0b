# SPDX-License-Identifier: Apache-2.0
"""RANZCR CLiP: chest X-rays with lines and tubes drawn as polylines."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.adapters.folders import found
from fedefm_core.corpora.records import DataSet, Mask, Record
from fedefm_core.errors import ManifestError, TruthError

_LINE_SHARE = 1 / 150  # of the shorter side: about 4 mm of a chest, the width of a line or tube
_SUB_PIXEL_BITS = 4
_MAX_FIELD = 2**24

Rows = Sequence[dict[str, str]]


def ranzcr_clip(path: Path) -> DataSet:
    """train.csv, train/UID.jpg and, for some, polylines in train_annotations.csv.

    All images of a PatientID are one group. Masks: 1 where a line or tube runs, for the images
    that are annotated; the width is ours, the annotation has none. The test images are left
    aside: nothing says which of them are of one patient.
    """
    polylines: dict[str, list[str]] = defaultdict(list)
    annotations = path / "train_annotations.csv"
    if annotations.is_file():
        for row in _rows(annotations, ("StudyInstanceUID", "data")):
            polylines[row["StudyInstanceUID"]].append(row["data"])
    records = []
    for row in _rows(path / "train.csv", ("StudyInstanceUID", "PatientID")):
        image = path / "train" / f"{row['StudyInstanceUID']}.jpg"
        texts = polylines.get(row["StudyInstanceUID"])
        if texts is None:
            records.append(Record(image, row["PatientID"]))
        else:
            masks = partial(_draw, annotations, image.stem, texts)
            records.append(Record(image, row["PatientID"], None, masks, (annotations,)))
    records.sort(key=lambda record: record.path.name)
    return DataSet(found(records, path, "train.csv with train/UID.jpg"), ("background", "line"))


def _rows(path: Path, columns: Sequence[str]) -> Rows:
    csv.field_size_limit(_MAX_FIELD)  # a polyline may be long
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise ManifestError(f"{path} has no column '{min(missing)}'")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} cannot be read as a table: {error}") from error


def _draw(
    annotations: Path, uid: str, texts: Sequence[str], shape: tuple[int, int]
) -> Iterator[Mask]:
    mask = np.zeros(shape, np.uint8)
    width = max(1, round(min(shape) * _LINE_SHARE))
    for text in texts:
        points = _points(annotations, uid, text)
        fixed = np.rint(points * 2**_SUB_PIXEL_BITS).astype(np.int32)
        cv2.polylines(mask, [fixed], False, 1, width, shift=_SUB_PIXEL_BITS)
    yield mask


def _points(annotations: Path, uid: str, text: str) -> npt.NDArray[np.float64]:
    try:
        points = np.array(json.loads(text), np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(f"shape {points.shape}")
    except (ValueError, TypeError) as error:
        raise TruthError(
            f"{annotations}: 'data' of {uid} must be a list of [x, y] ({error})"
        ) from error
    return points
