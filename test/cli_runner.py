# SPDX-License-Identifier: Apache-2.0
"""Run the command line in this process, as a shell would."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from fedefm_core.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def run_cli(*arguments: object) -> Result:
    """Exit code and output of 'fedefm_core ARGUMENTS'; an unforeseen exception comes through."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["fedefm_core", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit:
            code = int(exit.code or 0)
    return Result(code, out.getvalue(), err.getvalue())
