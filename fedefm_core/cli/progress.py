# SPDX-License-Identifier: Apache-2.0
"""A progress line with the time that is left, on stderr, and only where a person watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from fedefm_core.frames import FrameSource

Item = TypeVar("Item")


def progress(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Yield items, showing how many of total are done and how long the rest will take."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=total)
        for item in items:
            yield item
            bar.advance(task)


def expected_frames(source: FrameSource) -> int | None:
    """How many frames source will give; of a folder, the number of its files; None if unknown."""
    from fedefm_core.frames.source import image_files

    if source.frame_count is None and source.path.is_dir():
        return len(image_files(source.path))
    return source.frame_count
