# SPDX-License-Identifier: Apache-2.0
"""The parameters of motion_guard_node; config/motion_guard.yaml documents the same for users."""

from __future__ import annotations

from collections.abc import Mapping

from fedefm_core.config import parse_settings
from fedefm_ros import interface
from fedefm_ros.motion_guard import GuardSettings
from fedefm_ros.parameters import ParameterSpec, Value

INSTRUMENT = "instrument"
_DEFAULTS = GuardSettings()
RULES = (
    ParameterSpec(
        "camera_rate_hz",
        _DEFAULTS.camera_rate_hz,
        "Frames a second that the camera sends; what is a gap, and what is slow, follows from it.",
        unit="Hz",
        minimum=1.0,
        maximum=1000.0,
    ),
    ParameterSpec(
        "recovery_time_s",
        _DEFAULTS.recovery_time_s,
        "Of good tracking without a gap, before permission comes, or comes back.",
        unit="s",
        minimum=0.1,
        maximum=60.0,
    ),
    ParameterSpec(
        "state_timeout_s",
        _DEFAULTS.state_timeout_s,
        "Longest silence on the topic state.",
        unit="s",
        minimum=0.01,
        maximum=10.0,
    ),
    ParameterSpec(
        "max_gap_frames",
        _DEFAULTS.max_gap_frames,
        "Longest time from one good frame to the next, in periods of the camera.",
        unit="periods",
        minimum=1.1,
        maximum=30.0,
    ),
    ParameterSpec(
        "max_age_s",
        _DEFAULTS.max_age_s,
        "Of a good frame when it has come, by its stamp.",
        unit="s",
        minimum=0.01,
        maximum=10.0,
    ),
    ParameterSpec(
        "max_future_s",
        _DEFAULTS.max_future_s,
        "How far in the future a stamp may be: what clocks may differ by.",
        unit="s",
        minimum=0.0,
        maximum=1.0,
    ),
    ParameterSpec(
        "max_pause_s",
        _DEFAULTS.max_pause_s,
        "How long the guard itself may not have run, on a machine that is too busy.",
        unit="s",
        minimum=0.02,
        maximum=10.0,
    ),
    ParameterSpec(
        "min_rate_share",
        _DEFAULTS.min_rate_share,
        "Good frames in the last second over those that the camera sends.",
        minimum=0.01,
        maximum=1.0,
    ),
    ParameterSpec(
        "max_jump_px",
        _DEFAULTS.max_jump_px,
        "How far the tip may move from one frame to the next.",
        unit="pixels",
        minimum=1.0,
        maximum=10000.0,
    ),
    ParameterSpec(
        "max_speed_px_s",
        _DEFAULTS.max_speed_px_s,
        "How fast the tip may move from one frame to the next.",
        unit="pixels/s",
        minimum=1.0,
        maximum=1e6,
    ),
    ParameterSpec(
        "max_length_change_px",
        _DEFAULTS.max_length_change_px,
        "By how much the instrument's length may change from one frame to the next.",
        unit="pixels",
        minimum=1.0,
        maximum=10000.0,
    ),
    ParameterSpec(
        "max_sigma_px",
        _DEFAULTS.max_sigma_px,
        "Standard deviation of the tip, where it is largest.",
        unit="pixels",
        minimum=0.1,
        maximum=1000.0,
    ),
    ParameterSpec(
        "max_mask_distance_px",
        _DEFAULTS.max_mask_distance_px,
        "From the tip to the nearest pixel of its instrument in the mask.",
        unit="pixels",
        minimum=0.5,
        maximum=100.0,
    ),
    ParameterSpec(
        "require_metres",
        _DEFAULTS.require_metres,
        "Each frame must also bring the tip in metres; true for a controller that uses it.",
    ),
)
SPECS = (
    ParameterSpec(
        INSTRUMENT,
        interface.KINDS[0],
        "The instrument that the robot moves.",
        choices=interface.KINDS,
    ),
    *RULES,
)


def guard_settings(values: Mapping[str, Value]) -> GuardSettings:
    """Settings of the guard from the values of all parameters."""
    return parse_settings(GuardSettings, {spec.name: values[spec.name] for spec in RULES})
