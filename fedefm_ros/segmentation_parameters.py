# SPDX-License-Identifier: Apache-2.0
"""The parameters of segmentation_node; config/segment.yaml documents the same ones for users."""

import os
from collections.abc import Mapping

from fedefm_core.config import parse_settings
from fedefm_core.perception import PerceptionSettings, TrackerSettings
from fedefm_ros.parameters import ParameterSpec, Value

_TRACKER_DEFAULTS = TrackerSettings()
TRACKER = (
    ParameterSpec(
        "tracker.min_confidence",
        _TRACKER_DEFAULTS.min_confidence,
        "Instruments below this confidence are never tracked.",
        minimum=0.0,
        maximum=1.0,
    ),
    ParameterSpec(
        "tracker.confirm_frames",
        _TRACKER_DEFAULTS.confirm_frames,
        "Frames in a row with a consistent tip before it is published.",
        minimum=1,
        maximum=100,
    ),
    ParameterSpec(
        "tracker.switch_frames",
        _TRACKER_DEFAULTS.switch_frames,
        "Frames for which a tip elsewhere must persist before the track moves over to it.",
        minimum=1,
        maximum=1000,
    ),
    ParameterSpec(
        "tracker.bridge_time_s",
        _TRACKER_DEFAULTS.bridge_time_s,
        "How long a track may go unseen before it is LOST.",
        unit="s",
        minimum=0.0,
        maximum=10.0,
    ),
    ParameterSpec(
        "tracker.bridge_frames",
        _TRACKER_DEFAULTS.bridge_frames,
        "How many frames a track may go unseen before it is LOST.",
        minimum=0,
        maximum=1000,
    ),
    ParameterSpec(
        "tracker.max_speed_px_s",
        _TRACKER_DEFAULTS.max_speed_px_s,
        "A tip that moved faster does not continue its track.",
        unit="pixels/s",
        minimum=1.0,
        maximum=1e6,
    ),
    ParameterSpec(
        "tracker.gate_sigma",
        _TRACKER_DEFAULTS.gate_sigma,
        "A tip farther from the prediction does not continue its track.",
        unit="standard deviations",
        minimum=0.1,
        maximum=100.0,
    ),
)
SPECS = (
    ParameterSpec(
        "model",
        "",
        "Model file, or the name of a shipped model; empty: the shipped default.",
    ),
    ParameterSpec(
        "runtime",
        "auto",
        "Inference runtime; auto takes the first that works, in the order of this list.",
        choices=("auto", "tensorrt", "openvino", "onnxruntime", "torch"),
    ),
    ParameterSpec(
        "build_engine",
        False,
        "Build the TensorRT engine at configure if there is none: minutes, told on /diagnostics.",
    ),
    ParameterSpec(
        "threads",
        0,
        "Threads of the inference runtime; 0: all cores but one, from 2 to 4.",
        minimum=0,
        maximum=64,
    ),
    ParameterSpec(
        "image_transport",
        "raw",
        "raw: topic image; compressed: topic image/compressed, JPEG or PNG.",
        choices=("raw", "compressed"),
    ),
    ParameterSpec(
        "autostart", False, "Configure and activate without being asked, once, at start."
    ),
    ParameterSpec(
        "max_image_size",
        4096,
        "Longest side of an image that is accepted.",
        unit="pixels",
        minimum=32,
        maximum=16384,
    ),
    ParameterSpec(
        "max_age",
        0.2,
        "Frames whose stamp is older, or as far in the future, are not processed; 0: no limit.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
        live=True,
    ),
    ParameterSpec(
        "image_timeout",
        0.5,
        "The state is STALE when no frame was processed for so long; 0: never.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
        live=True,
    ),
    ParameterSpec(
        "source_detector_distance",
        0.0,
        "X-ray source to detector; with camera_info it gives metres. 0: not known.",
        unit="m",
        minimum=0.0,
        maximum=5.0,
        live=True,
    ),
    ParameterSpec(
        "magnification",
        1.0,
        "Of the instrument on the detector; metres are divided by it. 1: metres at the detector.",
        minimum=1.0,
        maximum=10.0,
        live=True,
    ),
    ParameterSpec(
        "image_plane_frame",
        "",
        "Frame of the metric outputs; empty: the image's frame_id followed by _image_plane.",
        live=True,
    ),
    ParameterSpec("overlay", True, "Publish overlay while somebody subscribes to it.", live=True),
    ParameterSpec(
        "diagnostics_period",
        1.0,
        "Between two messages on /diagnostics.",
        unit="s",
        minimum=0.1,
        maximum=60.0,
    ),
    *TRACKER,
)


def perception_settings(values: Mapping[str, Value]) -> PerceptionSettings:
    """Settings of the segmenter from the values of all parameters."""
    tracker = {spec.name.split(".")[1]: values[spec.name] for spec in TRACKER}
    return PerceptionSettings(tracker=parse_settings(TrackerSettings, tracker))


def runtime_threads(asked: int) -> int:
    """Threads for the runtime: as asked; for 0 by the cores that this process may use.

    All but one, so that DDS has a core of its own, and at most four: more gain little on a network
    this small. Of two cores both, or the network would miss its time.
    """
    cores = len(os.sched_getaffinity(0))
    return asked or max(min(2, cores), min(4, cores - 1))
