# SPDX-License-Identifier: Apache-2.0
"""Frame in, Perception out: preprocess, network, instruments, tracker."""

from __future__ import annotations
