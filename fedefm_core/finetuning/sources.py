# SPDX-License-Identifier: Apache-2.0
"""Folders -> frames of one size in a run: images, and of labelled ones label maps and known tips.

RUN/data/images/000000.png   grey, fitted into a square as at inference
RUN/data/masks/000000.png    0 background, 1 catheter, 2 guidewire, 255 unknown and the border
RUN/data/frames.json         name, split, group, source and tips of each; written last
RUN/unlabelled/              images and frames.json likewise: name and source of each
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.corpora.adapters import ADAPTERS
from fedefm_core.corpora.adapters.polylines import polylines
from fedefm_core.corpora.reading import decode, frame_count
from fedefm_core.corpora.records import DataSet, Mask, Record, Split
from fedefm_core.corpora.splits import assign_splits
from fedefm_core.errors import ConfigError, ManifestError, OutputError, TruthError
from fedefm_core.evaluation.truth import TRUTH_FILE, FrameTruth, read_truth
from fedefm_core.finetuning.data import PoolFrame
from fedefm_core.finetuning.settings import DataSettings
from fedefm_core.frames import Frame, open_source
from fedefm_core.perception.preprocess import Letterbox, preprocess
from fedefm_core.perception.types import CLASS_NAMES, UNKNOWN

POLYLINES = "polylines"
FRAMES_FILE = "frames.json"
_HALF = 0.5  # of a pixel must be instrument for a smaller label map to say so
_NAMED = 3  # files that a message names
_UNNAMED = 254  # stands for a value that the data set gives no name; no class of ours
_VALUES: Mapping[str, int] = {name: i for i, name in enumerate(CLASS_NAMES)} | {"unknown": UNKNOWN}
Tips = list[tuple[str, list[float]]]


@dataclass(frozen=True)
class Item:
    """One frame to be read. number: of the frame in its file."""

    name: str
    record: Record
    number: int
    split: Split
    group: str


def check_data(settings: DataSettings) -> DataSet:
    """The data set, as far as names of files tell.

    Raises ConfigError for an adapter, class or width that does not fit, TruthError for a folder
    without images in that layout, or when images and masks do not match by name.
    """
    with no_manifest():
        data = _open(settings)
    _class_table(settings, data)
    without = [record.path for record in data.records if record.masks is None]
    if settings.unlabelled == "refuse" and without:
        raise TruthError(
            f"{len(without)} of {len(data.records)} images in {settings.path} have no mask of "
            f"their name: {_listed(without)}; label them, or set 'unlabelled: skip'"
        )
    if len(without) == len(data.records):
        raise TruthError(f"No image in {settings.path} has a mask, so nothing can be learnt there")
    orphans = _orphans(data)
    if orphans:
        raise TruthError(
            f"{len(orphans)} masks in {settings.path} have no image of their name: "
            f"{_listed(orphans)}"
        )
    return data


@contextmanager
def no_manifest() -> Iterator[None]:
    """What corpora say of a manifest is here about data: TruthError instead of ManifestError."""
    try:
        yield
    except ManifestError as error:
        raise TruthError(str(error)) from error


def write_data(
    sources: Sequence[DataSettings], folder: Path, size: int, seed: int
) -> Iterator[int]:
    """Decode training and validation frames of all sources into folder, yielding their number
    once a frame; nothing when that was done before. Test frames are left alone.

    Raises TruthError or FrameError, naming the file, for a mask of another size than its image,
    values that are no class, or a file that cannot be read; OutputError when folder cannot be
    written.
    """
    if (folder / FRAMES_FILE).is_file():
        return
    entries: list[dict[str, Any]] = []
    opened = [check_data(source) for source in sources]
    listed = [
        _items(source, data, seed, f"{number:02d}")
        for number, (source, data) in enumerate(zip(sources, opened, strict=True))
    ]
    total = sum(len(items) for items in listed)
    try:
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for source, data, items in zip(sources, opened, listed, strict=True):
            table, truth = _class_table(source, data), _truth(source)
            for record, of_record in groupby(items, key=lambda item: item.record):
                for entry in _write_record(record, list(of_record), table, truth, folder, size):
                    entries.append(entry)
                    yield total
        write_last(folder / FRAMES_FILE, {"frames": entries})
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror or error}") from error


def read_data(folder: Path, split: Split) -> list[PoolFrame]:
    """What write_data wrote of one split. Raises TruthError when it is damaged or has none."""
    try:
        entries = json.loads((folder / FRAMES_FILE).read_text())["frames"]
        frames = [_pool_frame(folder, entry) for entry in entries if entry["split"] == split]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TruthError(f"{folder} holds no finished frames: {error}") from error
    if not frames:
        raise TruthError(
            f"The data of this run have no labelled frames for {split}; give 'splits' a larger "
            "share of them"
        )
    return frames


def write_unlabelled(
    paths: Sequence[Path], every: int, folder: Path, size: int
) -> Iterator[int | None]:
    """Write every every-th frame of all paths into folder, yielding once a frame how many there
    are, None where nobody knows; nothing when that was done before.

    Raises FrameError for a path that no reader can open, OutputError when folder cannot be
    written. Files of a folder that cannot be read are set aside.
    """
    if (folder / FRAMES_FILE).is_file():
        return
    entries: list[dict[str, Any]] = []
    sources = [open_source(path) for path in paths]
    counts = [source.frame_count for source in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for source in sources:
            for index, frame in enumerate(source):
                if index % every == 0:
                    taken_from = f"{frame.source}#{frame.index}"
                    entry = {"name": f"{len(entries):06d}", "source": taken_from}
                    image, _ = preprocess(frame, (size, size))
                    write_png(folder / "images" / f"{entry['name']}.png", image)
                    entries.append(entry)
                yield total
        skipped = [f"{path}: {reason}" for source in sources for path, reason in source.skipped]
        write_last(folder / FRAMES_FILE, {"frames": entries, "set_aside": skipped})
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror or error}") from error


def read_unlabelled(folder: Path) -> list[PoolFrame]:
    """What write_unlabelled wrote. Raises TruthError when it is damaged."""
    try:
        entries = json.loads((folder / FRAMES_FILE).read_text())["frames"]
        return [
            PoolFrame(folder / "images" / f"{entry['name']}.png", None, None, entry["source"])
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TruthError(f"{folder} holds no finished frames: {error}") from error


def write_last(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON in one step, when all else is there: with it, the folder is finished."""
    partial_file = path.with_name(path.name + ".partial")
    partial_file.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial_file, path)


def _open(settings: DataSettings) -> DataSet:
    lines = settings.adapter == POLYLINES
    if lines != (settings.line_width_px is not None):
        raise ConfigError(
            f"'line_width_px' must be given with 'adapter: {POLYLINES}', whose lines have no "
            f"width, and only there (got adapter '{settings.adapter}')"
        )
    if settings.line_width_px is not None:
        return polylines(settings.path, settings.line_width_px)
    if settings.adapter not in ADAPTERS:
        known = ", ".join(sorted([*ADAPTERS, POLYLINES]))
        raise ConfigError(f"'{settings.adapter}' is no known adapter; there is: {known}")
    return ADAPTERS[settings.adapter](settings.path)


def _class_table(settings: DataSettings, data: DataSet) -> npt.NDArray[np.uint8]:
    """(256,) uint8: our label for each stored value. Raises ConfigError for a class unnamed."""
    table = np.full(256, _UNNAMED, np.uint8)
    if settings.unknown_255:
        table[UNKNOWN] = UNKNOWN
    extra = sorted(set(settings.classes) - set(data.mask_classes))
    if extra:
        raise ConfigError(
            f"'classes' names '{extra[0]}', which {settings.adapter} in {settings.path} has not; "
            f"it has {', '.join(data.mask_classes)}"
        )
    for value, name in enumerate(data.mask_classes):
        ours = settings.classes.get(name, name)
        if ours not in _VALUES:
            raise ConfigError(
                f"{settings.adapter} in {settings.path} marks '{name}'; say in 'classes' which of "
                f"{', '.join(_VALUES)} that is here"
            )
        table[value] = _VALUES[ours]
    return table


def _orphans(data: DataSet) -> list[Path]:
    """Files called and placed as the masks of these images are, that belong to none of them."""
    used = {path for record in data.records for path in record.mask_files}
    kinds = {  # a folder and what follows an image's name in that of its mask
        (mask.parent, mask.name.removeprefix(record.path.stem))
        for record in data.records
        for mask in record.mask_files
        if mask.name.startswith(record.path.stem)
    }
    alike = {path for folder, ending in kinds for path in folder.glob(f"*{ending}")}
    images = {record.path for record in data.records}
    return sorted(path for path in alike - used - images if path.name[0] != ".")


def _items(settings: DataSettings, data: DataSet, seed: int, prefix: str) -> list[Item]:
    records = [record for record in data.records if record.masks is not None]
    frames = [(record, n) for record in records for n in range(frame_count(record.path))]
    with no_manifest():
        splits = assign_splits(
            [record.group for record, _ in frames],
            [record.split for record, _ in frames],
            settings.splits,
            seed,
            str(settings.path),
        )
    items = [
        Item(f"{prefix}_{number:06d}", record, n, split, f"{prefix}/{record.group}")
        for number, ((record, n), split) in enumerate(zip(frames, splits, strict=True))
        if n % settings.every == 0
    ]
    return [item for item in items if item.split != "test"]


def _write_record(
    record: Record,
    items: Sequence[Item],
    table: npt.NDArray[np.uint8],
    truth: Mapping[str, FrameTruth],
    folder: Path,
    size: int,
) -> Iterator[dict[str, Any]]:
    by_number = {item.number: item for item in items}
    for found in decode(record, by_number):
        item = by_number[found.frame]
        assert found.mask is not None
        labels = table[found.mask]
        if (labels == _UNNAMED).any():
            value = int(found.mask[labels == _UNNAMED][0])
            where = record.mask_files[0] if record.mask_files else record.path
            raise TruthError(
                f"The mask {where} of {record.path.name} holds the value {value}; its classes are "
                f"{_legend(table)}"
            )
        image, box = preprocess(Frame(found.grey), (size, size))
        write_png(folder / "images" / f"{item.name}.png", image)
        write_png(folder / "masks" / f"{item.name}.png", fit_labels(labels, box))
        yield {
            "name": item.name,
            "split": item.split,
            "group": item.group,
            "source": f"{record.path}#{found.frame}",
            "tips": _tips(truth.get(record.path.stem), box),
        }


def fit_labels(labels: Mask, box: Letterbox) -> Mask:
    """(H, W) labels to the network's image; what shows no input is unknown.

    Made smaller, a pixel is an instrument where instruments cover half of it, and then the one
    that covers more: a line does not fall apart as it would by nearest neighbour.
    """
    height, width = box.content_size
    if (height, width) == labels.shape:
        content = labels
    elif height >= labels.shape[0] and width >= labels.shape[1]:
        content = np.asarray(
            cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
        )
    else:
        content = _shrunk(labels, height, width)
    whole = np.full(box.network_size, UNKNOWN, np.uint8)
    box.content(whole)[:] = content
    return whole


def _shrunk(labels: Mask, height: int, width: int) -> Mask:
    def cover(value: int) -> npt.NDArray[np.float32]:
        inside = (labels == value).astype(np.float32)
        shrunk = cv2.resize(inside, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(shrunk, np.float32).reshape(height, width)

    catheter, guidewire, unknown = cover(1), cover(2), cover(UNKNOWN)
    content = np.where(unknown > 0, UNKNOWN, 0).astype(np.uint8)
    shown = catheter + guidewire >= _HALF - 1e-6
    content[shown] = np.where(guidewire > catheter, 2, 1)[shown]
    return content


def _truth(settings: DataSettings) -> Mapping[str, FrameTruth]:
    """By stem of image, what a truth.json of 'simulate' says; {} without one."""
    path = settings.path / TRUTH_FILE
    return read_truth(path) if settings.adapter == "pictures" and path.is_file() else {}


def _tips(truth: FrameTruth | None, box: Letterbox) -> Tips | None:
    if truth is None:
        return None
    return [
        (kind, box.to_network(tip).round(3).tolist())
        for kind, tips in truth.tips.items()
        for tip in tips
    ]


def _pool_frame(folder: Path, entry: Mapping[str, Any]) -> PoolFrame:
    tips = entry["tips"]
    return PoolFrame(
        folder / "images" / f"{entry['name']}.png",
        folder / "masks" / f"{entry['name']}.png",
        None if tips is None else [(kind, np.array(tip)) for kind, tip in tips],
        entry["group"],
    )


def _legend(table: npt.NDArray[np.uint8]) -> str:
    names = {value: name for name, value in _VALUES.items()}
    return ", ".join(
        f"{value} ({names[int(ours)]})" for value, ours in enumerate(table) if ours != _UNNAMED
    )


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(path.name for path in paths[:_NAMED]) + more


def write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Raises OSError, which cv2.imwrite does not."""
    _, data = cv2.imencode(".png", pixels)
    path.write_bytes(data.tobytes())
