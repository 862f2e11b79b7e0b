# SPDX-License-Identifier: Apache-2.0
"""What every study hands back, and the page for people that is made of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedefm_core.errors import OutputError

Rows = Sequence[tuple[str, ...]]  # of a table, the first is its header


@dataclass(frozen=True)
class Result:
    """report: plain JSON, all figures. title, text: Markdown, what was asked and how.

    tables: rows by caption. pictures: files by caption, inside the study's folder.
    """

    report: Mapping[str, Any]
    title: str
    text: str = ""
    tables: Mapping[str, Rows] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)


def markdown(result: Result, folder: Path, command: str) -> str:
    """The page: title, command that makes it again, text, tables, pictures.

    folder: where the page will lie; links to pictures are relative to it.
    """
    parts = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f"# {result.title}",
        f"Made by `{command}`.",
        result.text.strip(),
    ]
    parts += [f"**{caption}**\n\n{_table(rows)}" for caption, rows in result.tables.items()]
    parts += [
        f"![{caption}]({path.relative_to(folder).as_posix()})\n\n{caption}"
        for caption, path in result.pictures.items()
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_page(result: Result, page: Path, command: str) -> None:
    """Write the page somewhere else, with copies of its pictures in images/ beside it.

    Raises OutputError when that cannot be done.
    """
    images = page.parent / "images"
    copies = {
        caption: images / f"{page.stem}_{path.name}" for caption, path in result.pictures.items()
    }
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        for caption, path in result.pictures.items():
            images.mkdir(exist_ok=True)
            shutil.copyfile(path, copies[caption])
        page.write_text(markdown(replace(result, pictures=copies), page.parent, command))
    except OSError as error:
        raise OutputError(f"Cannot write the page {page}: {error.strerror}") from error


def _table(rows: Rows) -> str:
    header, *body = rows
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *body))
