# SPDX-License-Identifier: Apache-2.0
"""Names that one part of a study's configuration takes from another."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fedefm_core.errors import ConfigError


def one_of(name: str, known: Iterable[str], where: str) -> None:
    """Raise ConfigError, with the nearest, for a name that nothing bears."""
    names = list(known)
    if name in names:
        return
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    raise ConfigError(f"'{where}' must name one of {', '.join(names)} (got '{name}'){hint}")
