# SPDX-License-Identifier: Apache-2.0
"""What the adapters share: files of a folder by suffix, and the sentence when none are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedefm_core.corpora.records import Record, Split
from fedefm_core.errors import ManifestError

STILL_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder by suffix, sorted; no hidden ones, as macOS leaves them. [] if absent."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name[0] != "." and path.name.lower().endswith(tuple(suffixes)) and path.is_file()
    )


def subfolders(folder: Path) -> list[Path]:
    """Folders of a folder, sorted; hidden ones not. [] if absent."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def found(records: Sequence[Record], path: Path, expected: str) -> Sequence[Record]:
    """records, or ManifestError when there are none: the folder is not what it was said to be."""
    if not records:
        raise ManifestError(f"{path} holds no images in the layout expected: {expected}")
    return records
