# SPDX-License-Identifier: Apache-2.0
"""Errors of readers and parsers, told with the name of the file that caused them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fedefm_core.errors import FrameError


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Put the file's name before every error; whatever a parser raises becomes a FrameError.

    Parsers of damaged files fail in more ways than they document, so all of them are caught here.
    """
    try:
        yield
    except FrameError as error:
        raise type(error)(f"{path}: {error}", reason=error.reason) from error
    except OSError as error:
        raise FrameError(f"{path}: it cannot be opened: {error.strerror or error}") from error
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise FrameError(f"{path}: it is damaged or truncated ({detail:.200})") from error
