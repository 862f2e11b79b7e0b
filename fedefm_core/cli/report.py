# SPDX-License-Identifier: Apache-2.0
"""Reports of the verbs: a JSON file for machines, a table for people."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedefm_core.errors import OutputError


def check_report_path(path: Path, what: str = "report") -> None:
    """Raise OutputError now, not after a long run, when what could not be written to path."""
    if path.is_dir():
        raise OutputError(f"The {what} {path} must be a file (it is a folder)")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"Cannot write the {what} {path}: the file there may not be changed")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputError(f"Cannot write the {what} {path}: {folder} is no writable folder")


def write_json(report: Mapping[str, Any], path: Path) -> None:
    """Write report to path, making its folder. Raises OutputError when that cannot be done."""
    write_text(json.dumps(report, indent=2) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write text to path, making its folder. Raises OutputError when that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise OutputError(f"Cannot write the report {path}: {error.strerror}") from error


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of which is the header."""
    from rich.console import Console
    from rich.table import Table

    header, *body = rows
    table = Table()
    for index, title in enumerate(header):
        table.add_column(title, justify="left" if index == 0 else "right")
    for row in body:
        table.add_row(*row)
    Console().print(table)
