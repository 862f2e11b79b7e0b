# SPDX-License-Identifier: Apache-2.0
"""Libraries that report their use to their makers unasked: to be silenced before their import."""

from __future__ import annotations

import sys


def silence_openvino() -> None:
    """Hide the package through which OpenVINO and NNCF report; both can do without it.

    To import OpenVINO forks a process that sends, and ends it with a signal when that takes long.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
