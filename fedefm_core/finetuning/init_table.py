# SPDX-License-Identifier: Apache-2.0
"""The table of what a network took from a weights file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.table import Table

from fedefm_core.networks.initialise import Fate, Initialisation, Outcome

_MOST_ROWS = 12  # of what was left out: a whole text encoder would fill the screen
_ORDER: tuple[Outcome, ...] = ("loaded", "resized", "left out", "fresh")


def init_table(found: Initialisation) -> Table:
    """A row for each part of the network, or of the file where the network has no such part."""
    table = Table(title=f"{found.path.name} ({found.layout})", title_justify="left")
    table.add_column("part")
    table.add_column("weights", justify="right")
    table.add_column("parameters", justify="right")
    table.add_column("")
    for outcome in _ORDER:
        groups = _grouped(found.of(outcome))
        rows = list(groups.items())
        if outcome == "left out" and len(rows) > _MOST_ROWS:
            rest = [fate for _, fates in rows[_MOST_ROWS:] for fate in fates]
            rows = [*rows[:_MOST_ROWS], ((f"{len(rows) - _MOST_ROWS} more", ""), rest)]
        for (part, note), fates in rows:
            text = f"{outcome}: {note}" if note else outcome
            table.add_row(part, str(len(fates)), f"{_parameters(fates):,}", text)
    return table


def _grouped(fates: Sequence[Fate]) -> dict[tuple[str, str], list[Fate]]:
    groups: dict[tuple[str, str], list[Fate]] = {}
    for fate in fates:
        groups.setdefault((_part(fate), fate.note), []).append(fate)
    return groups


def _part(fate: Fate) -> str:
    """'body.layers' for all layers; of what was left out, the name with '*' for its numbers."""
    name = re.sub(r"[._](weight|bias|running_mean|running_var)$", "", fate.name)
    if fate.outcome == "left out":
        return re.sub(r"\d+", "*", name)
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and not rest[0].isdigit() else first


def _parameters(fates: Sequence[Fate]) -> int:
    return sum(fate.parameters for fate in fates)
