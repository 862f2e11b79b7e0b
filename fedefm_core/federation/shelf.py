# SPDX-License-Identifier: Apache-2.0
"""Where weights lie while no network holds them: in memory, or each set in a file of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedefm_core.errors import OutputError
from fedefm_core.federation.state import State


class MemoryShelf(dict[str, State]):
    """All states in memory."""

    def alias(self, name: str, other: str) -> None:
        """Let other be the state that name is now; no copy is made."""
        self[other] = self[name]


class DiskShelf(MutableMapping[str, State]):
    """Each state in a safetensors file, so that memory holds a few of many large ones.

    Raises OutputError when the folder cannot be written. Nothing outlives the process: what lay
    in the folder before is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._numbers = itertools.count()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.glob("*.safetensors"):
                file.unlink()
        except OSError as error:
            raise OutputError(f"Cannot use the folder {folder}: {error.strerror}") from error

    def __getitem__(self, name: str) -> State:
        return load_file(self._files[name])

    def __setitem__(self, name: str, state: State) -> None:
        file = self._folder / f"{next(self._numbers)}.safetensors"
        try:
            save_file(dict(state), file)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"Cannot write {file}: {error}") from error
        self._assign(name, file)

    def __delitem__(self, name: str) -> None:
        file = self._files.pop(name)
        if file not in self._files.values():
            file.unlink(missing_ok=True)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._files))

    def __len__(self) -> int:
        return len(self._files)

    def alias(self, name: str, other: str) -> None:
        """Let other be the state that name is now."""
        self._assign(other, self._files[name])

    def _assign(self, name: str, file: Path) -> None:
        if self._files.get(name) == file:
            return
        if name in self._files:
            del self[name]
        self._files[name] = file


Shelf = MemoryShelf | DiskShelf
