# SPDX-License-Identifier: Apache-2.0
"""The messages on `state` and `/diagnostics`, from plain values."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from fedefm_core.perception import Runtime, TrackPhase
from fedefm_ros import interface
from fedefm_ros.health import LastResult, State, Statistics, Verdict
from fedefm_ros.messages import status_message

LEVELS = {
    State.TRACKING: DiagnosticStatus.OK,
    State.LOST: DiagnosticStatus.WARN,
    State.STALE: DiagnosticStatus.STALE,
    State.FAULT: DiagnosticStatus.ERROR,
}
TRANSPORT_ADVICE = (
    "The middleware lost {count} images. Fast DDS needs its LARGE_DATA transport at both ends for "
    "large best-effort images: see 'Transport' in docs/ros.md"
)


def about(runtime: Runtime, threads: int) -> dict[str, object]:
    """What runs: for the log and the diagnostics."""
    metadata = runtime.metadata
    return {
        "runtime": runtime.name,
        "threads": threads,
        "model": metadata.name,
        "precision": metadata.precision,
        "model_sha256": metadata.weights_sha256,
        "skipped_runtimes": " ".join(runtime.skipped_runtimes.values()),
        "warning": " ".join(runtime.warnings),
    }


def state_message(
    verdict: Verdict, stamp: Time, last: LastResult, about: Mapping[str, object]
) -> DiagnosticArray:
    """One status. `message` starts with the state's name; values, all as text:

    state; frame_stamp_ns: of the newest frame processed, empty before it; and for each kind
    NAME_tip: valid or none, in that frame; NAME_confidence: 0 to 1, NAME_length_px: of the
    instrument, NAME_sigma_px: largest standard deviation of the tip, all empty without a tip;
    NAME_track: SEARCHING, TRACKED, BRIDGED or LOST. In state STALE or FAULT there is no tip and
    NAME_track is empty.
    """
    values: dict[str, object] = {
        "state": verdict.state.value,
        "frame_stamp_ns": "" if last.stamp_ns is None else last.stamp_ns,
    }
    processing = verdict.state in (State.TRACKING, State.LOST)
    for kind in interface.KINDS:
        confidence = last.confidence.get(kind) if processing else None
        phase = last.phases.get(kind, TrackPhase.SEARCHING).value if processing else ""
        values[f"{kind}_tip"] = "none" if confidence is None else "valid"
        values[f"{kind}_confidence"] = "" if confidence is None else f"{confidence:.3f}"
        for name, of_kind in (("length_px", last.length_px), ("sigma_px", last.sigma_px)):
            values[f"{kind}_{name}"] = "" if confidence is None else f"{of_kind[kind]:.3f}"
        values[f"{kind}_track"] = phase
    return status_message(
        stamp,
        f"{interface.NODE_NAME}: tracking",
        LEVELS[verdict.state],
        _sentence(verdict),
        values,
        str(about.get("model", "")),
    )


def diagnostics_message(
    verdict: Verdict,
    stamp: Time,
    statistics: Statistics,
    lost_before: int,
    about: Mapping[str, object],
    node_name: str,
) -> DiagnosticArray:
    """One status for robot monitors: the state, counts, rate, latencies, and what runs.

    lost_before: what the middleware had lost at the message before; more now makes it a warning,
    and so does a runtime that is installed, comes first, and could not be used.
    """
    values: dict[str, object] = {
        "state": verdict.state.value,
        "rate_hz": f"{statistics.rate_hz:.1f}",
        "received": statistics.received,
        "processed": statistics.processed,
        "faults": statistics.faults,
        "lost_by_middleware": statistics.lost_by_middleware,
        **{f"dropped_{reason}": count for reason, count in statistics.dropped.items()},
        "last_drop": statistics.last_drop,
        "last_fault": statistics.last_fault,
        **{f"latency_ms_{name}": f"{ms:.2f}" for name, ms in statistics.latency_ms.items()},
        **about,
    }
    text, level = _sentence(verdict), LEVELS[verdict.state]
    lost = statistics.lost_by_middleware - lost_before
    if lost > 0:
        text = f"{text}. {TRANSPORT_ADVICE.format(count=lost)}"
        level = max(level, DiagnosticStatus.WARN)
    if about.get("warning"):
        text = f"{text}. Not on the runtime meant: {about['warning']}"
        level = max(level, DiagnosticStatus.WARN)
    return status_message(
        stamp, f"{node_name.lstrip('/')}: perception", level, text, values, str(about["model"])
    )


def building_message(stamp: Time, progress: str, node_name: str, model: str) -> DiagnosticArray:
    """One status while configure builds an engine: no frame is processed, and how far it is."""
    return status_message(
        stamp,
        f"{node_name.lstrip('/')}: perception",
        DiagnosticStatus.WARN,
        f"Building the TensorRT engine: {progress}",
        {},
        model,
    )


def _sentence(verdict: Verdict) -> str:
    return f"{verdict.state.value}: {verdict.text}"
