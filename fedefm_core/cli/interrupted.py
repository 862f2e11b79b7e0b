# SPDX-License-Identifier: Apache-2.0
"""What to say when a person ends a long run: how to go on with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import typer


def how_to_resume(
    verb: str, configs: Sequence[Path], out: Path, overrides: Sequence[str] | None
) -> typer.Exit:
    """Print the command that resumes the run, quoted for a shell; the exit to raise, code 130."""
    options = [f"--set={text}" for text in overrides or []]
    command = ["fedefm_core", verb, *map(str, configs), "--out", str(out), *options, "--resume"]
    typer.echo(f"Interrupted. To go on: {shlex.join(command)}")
    return typer.Exit(130)
