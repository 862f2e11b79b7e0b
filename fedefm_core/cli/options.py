# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs take, each with its one description."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Images = Annotated[Path, typer.Option(help="Images: a folder, or anything predict reads.")]
Masks = Annotated[Path, typer.Option(help="Folder of STEM.png with values 0, 1 and 2.")]
Truth = Annotated[
    Path | None, typer.Option(help="Tips; default: truth.json beside the folder of masks.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: tip_gate_px=30.")
]
