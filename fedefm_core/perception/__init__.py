# SPDX-License-Identifier: Apache-2.0
"""Frame -> Perception: network, instruments, tips, tracks. Needs neither torch nor ROS."""

from fedefm_core.perception.instruments import InstrumentSettings, find_instruments
from fedefm_core.perception.metadata import ModelMetadata, read_metadata
from fedefm_core.perception.models import resolve_model, shipped_models
from fedefm_core.perception.overlay import draw_overlay
from fedefm_core.perception.pipeline import PerceptionSettings, Segmenter
from fedefm_core.perception.runtimes import NetworkOutput, Runtime, open_runtime
from fedefm_core.perception.tips import TipSettings
from fedefm_core.perception.tracking import Tracker, TrackerSettings, TrackPhase
from fedefm_core.perception.types import (
    BACKGROUND,
    CATHETER,
    CLASS_NAMES,
    GUIDEWIRE,
    INSTRUMENT_KINDS,
    Instrument,
    Perception,
    TrackingState,
)

__all__ = [
    "BACKGROUND",
    "CATHETER",
    "CLASS_NAMES",
    "GUIDEWIRE",
    "INSTRUMENT_KINDS",
    "Instrument",
    "InstrumentSettings",
    "ModelMetadata",
    "NetworkOutput",
    "Perception",
    "PerceptionSettings",
    "Runtime",
    "Segmenter",
    "TipSettings",
    "TrackPhase",
    "Tracker",
    "TrackerSettings",
    "TrackingState",
    "draw_overlay",
    "find_instruments",
    "open_runtime",
    "read_metadata",
    "resolve_model",
    "shipped_models",
]
