# SPDX-License-Identifier: Apache-2.0
"""The entry point: gathers the verbs and turns deliberate errors into one sentence."""

from __future__ import annotations

import sys

import typer

from fedefm_core.errors import FedefmError, ManifestError

app = typer.Typer(
    name="fedefm_core",
    help="Guidewire and catheter perception in X-ray: simulate, train, export, predict, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; exit 1 with a sentence on stderr when something was wrong, 2 when a
    manifest was: it is part of the command line, and nothing was done."""
    try:
        app()
    except FedefmError as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2 if isinstance(error, ManifestError) else 1)
    except OSError as error:  # what no verb foresees: a name too long, no permission to look
        if error.filename is None:
            raise
        typer.secho(f"Error: {error.filename}: {error.strerror}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.secho("Interrupted.", err=True)
        sys.exit(130)
