# SPDX-License-Identifier: Apache-2.0
"""Any folder of images with polygons in a COCO file (Lin et al., 'Microsoft COCO', ECCV 2014)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.adapters.folders import STILL_SUFFIXES, files, found
from fedefm_core.corpora.records import DataSet, Mask, Record
from fedefm_core.errors import ManifestError, TruthError

_LAYOUT = "images/* with annotations.json or annotations/*.json"
_SUB_PIXEL_BITS = 4
Shape = tuple[int, npt.NDArray[np.float64]]  # class, (N, 2) x, y in COCO's pixels


def coco(path: Path) -> DataSet:
    """PATH/annotations.json, or the one file in PATH/annotations/, with PATH/images/.

    Classes are the file's categories in the order of their ids. Polygons only, later ones lie
    over earlier ones; an image without any is all background. Raises ManifestError for a file
    that is no such thing, TruthError when it names an image that is not there, or one of another
    size than the image has.
    """
    annotations = _annotations(path)
    folder = path / "images" if (path / "images").is_dir() else path
    images, classes, shapes = read_polygons(annotations)
    present = files(folder, STILL_SUFFIXES)
    missing = sorted(set(images) - {image.name for image in present})
    if missing:
        raise TruthError(
            f"{annotations} names {len(missing)} images that are not in {folder}, "
            f"'{missing[0]}' for one"
        )
    records = [
        Record(
            image,
            group=image.name,
            masks=partial(_draw, annotations, images[image.name], shapes.get(image.name, ())),
            mask_files=(annotations,),
        )
        if image.name in images
        else Record(image, group=image.name)
        for image in present
    ]
    return DataSet(found(records, path, _LAYOUT), classes)


def _annotations(path: Path) -> Path:
    choices = [path / "annotations.json", *files(path / "annotations", (".json",))]
    there = [choice for choice in choices if choice.is_file()]
    if not there:
        raise ManifestError(f"{path} holds no images in the layout expected: {_LAYOUT}")
    if len(there) > 1:
        raise ManifestError(f"{path} must hold one COCO file (it holds {len(there)})")
    return there[0]


class Polygons(NamedTuple):
    """What a COCO file says. sizes: (height, width) by file name, None where it does not say.
    classes: the background and its categories. shapes: by file name, classes as their indices."""

    sizes: Mapping[str, tuple[int, int] | None]
    classes: tuple[str, ...]
    shapes: Mapping[str, Sequence[Shape]]


def read_polygons(path: Path) -> Polygons:
    """Read a COCO file. Raises ManifestError for one that is none, or has other than polygons."""
    try:
        content = json.loads(path.read_text())
        names = {image["id"]: Path(str(image["file_name"])).name for image in content["images"]}
        sizes = {names[image["id"]]: _size(image) for image in content["images"]}
        kinds = {int(kind["id"]): str(kind["name"]) for kind in content["categories"]}
        value = {kind: number for number, kind in enumerate(sorted(kinds), start=1)}
        shapes: dict[str, list[Shape]] = defaultdict(list)
        for entry in content["annotations"]:
            if not isinstance(entry["segmentation"], list):
                raise ValueError("a 'segmentation' is run-length encoded; polygons are expected")
            for flat in entry["segmentation"]:
                polygon = np.asarray(flat, np.float64).reshape(-1, 2)
                shapes[names[entry["image_id"]]].append((value[entry["category_id"]], polygon))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path} is no COCO file of polygons: {type(error).__name__}: {error}"
        ) from error
    return Polygons(sizes, ("background", *(kinds[kind] for kind in value)), shapes)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    if "height" not in image or "width" not in image:
        return None
    return int(image["height"]), int(image["width"])


def _draw(
    annotations: Path,
    size: tuple[int, int] | None,
    shapes: Sequence[Shape],
    shape: tuple[int, int],
) -> Iterator[Mask]:
    if size is not None and size != shape:
        raise TruthError(
            f"{annotations} is drawn on an image of {size[1]} x {size[0]} pixels; the file has "
            f"{shape[1]} x {shape[0]}"
        )
    yield fill(shapes, shape)


def fill(shapes: Sequence[Shape], shape: tuple[int, int]) -> Mask:
    """(H, W) of shape: the class of the last polygon over each pixel, 0 where there is none."""
    mask = np.zeros(shape, np.uint8)
    for value, polygon in shapes:
        # COCO counts from the corner of the first pixel, OpenCV from its centre.
        points = np.rint((polygon - 0.5) * 2**_SUB_PIXEL_BITS).astype(np.int32)
        cv2.fillPoly(mask, [points], value, shift=_SUB_PIXEL_BITS)
    return mask
