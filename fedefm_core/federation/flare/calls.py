# SPDX-License-Identifier: Apache-2.0
"""Names that both ends of a job know, and what is said of a call that was not answered."""

from __future__ import annotations

STATUS, PAUSE = "fedefm.status", "fedefm.pause"  # what the owner may ask of a running job
RESULTS = "fedefm"  # folder of a job's results that holds ours


def lost(site: str, step: str, error: Exception, deadline: float) -> str:
    """The sentence for a site that did not answer."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, TimeoutError) or "timeout" in str(cause).lower():
        return f"The site '{site}' did not answer within {deadline:g} s (step '{step}')"
    return f"The site '{site}' was lost (step '{step}'): {cause}"
