# SPDX-License-Identifier: Apache-2.0
"""Reports of the verbs: a JSON file for machines, a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedefm_core.errors import OutputError


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
