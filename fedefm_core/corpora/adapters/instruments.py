# SPDX-License-Identifier: Apache-2.0
"""X-ray images of catheters and guidewires: CathAction, EIPhantom and EISimulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fedefm_core.corpora.adapters.folders import (
    SPLIT_NAMES,
    STILL_SUFFIXES,
    files,
    found,
    subfolders,
)
from fedefm_core.corpora.reading import ToLabels, bright, class_values, foreground, mask_frames
from fedefm_core.corpora.records import DataSet, Record, Split
from fedefm_core.perception.types import CLASS_NAMES

INSTRUMENT = ("background", "instrument")
Group = Callable[[Path], str]


def cathaction(path: Path) -> DataSet:
    """.../img/VIDEO_img-0001.jpg with .../mask/VIDEO_img-0001_mask.png, as its segmentation task.

    Masks are 0 or 255: catheter and guidewire are one class. Frames of one video are one group.
    A folder named after a split, anywhere on the way, names it.
    """
    records: list[Record] = []
    for folder in sorted({*path.glob("img"), *path.glob("*/img"), *path.glob("*/*/img")}):
        split = _split_of(folder.relative_to(path).parts)
        masks = folder.parent / "mask"
        records += _paired(folder, masks, "_mask.png", bright, split, _video)
    return DataSet(found(records, path, "img/*_img-*.jpg with mask/*_mask.png"), INSTRUMENT)


def eiphantom(path: Path) -> DataSet:
    """phantom_train/images/NAME.png with phantom_train/masks/NAME.npy, phantom_test alike.

    Masks: 0 background, 1 catheter, 2 guidewire.
    """
    return _with_npy_masks(path, "phantom")


def eianimal(path: Path) -> DataSet:
    """As eiphantom, in animal_train and animal_test."""
    return _with_npy_masks(path, "animal")


def _with_npy_masks(path: Path, prefix: str) -> DataSet:
    records: list[Record] = []
    for folder, split in _halves(path, prefix):
        images, masks = folder / "images", folder / "masks"
        records += _paired(images, masks, ".npy", class_values, split, _own_group)
    return DataSet(found(records, path, "images/NAME.png with masks/NAME.npy"), tuple(CLASS_NAMES))


def eisimulation(path: Path) -> DataSet:
    """sim_train/images/NAME.png with sim_train/masks/NAME_mask.png, sim_test alike; masks > 0."""
    records: list[Record] = []
    for folder, split in _halves(path, "sim"):
        images, masks = folder / "images", folder / "masks"
        records += _paired(images, masks, "_mask.png", foreground, split, _own_group)
    return DataSet(found(records, path, "images/NAME.png with masks/NAME_mask.png"), INSTRUMENT)


def _paired(
    images: Path, masks: Path, ending: str, to_labels: ToLabels, split: Split | None, group: Group
) -> Iterator[Record]:
    """Images with the mask of the same stem where there is one."""
    for image in files(images, STILL_SUFFIXES):
        mask = masks / f"{image.stem}{ending}"
        if mask.is_file():
            reader = partial(mask_frames, mask, to_labels)
            yield Record(image, group(image), split, reader, (mask,))
        else:
            yield Record(image, group(image), split)


def _halves(path: Path, prefix: str) -> Iterator[tuple[Path, Split | None]]:
    """Folders with images/: path itself, or those inside; named prefix... where any is."""
    if (path / "images").is_dir():
        yield path, None
        return
    inside = [folder for folder in subfolders(path) if (folder / "images").is_dir()]
    named = [folder for folder in inside if folder.name.lower().startswith(prefix)]
    for folder in named or inside:
        yield folder, _split_of((folder.name,))


def _split_of(names: tuple[str, ...]) -> Split | None:
    """The split that one of the words of these names is."""
    words = [word for name in names for word in name.lower().replace("-", "_").split("_")]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def _video(image: Path) -> str:
    return image.stem.partition("_img-")[0]


def _own_group(image: Path) -> str:
    return f"{image.parent.parent.name}/{image.stem}"
