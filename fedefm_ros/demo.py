# SPDX-License-Identifier: Apache-2.0
"""The live path, end to end, on this machine: frames over real DDS through segmentation_node.

    python -m fedefm_ros.demo --out out/demo              the simulator, with known truth
    python -m fedefm_ros.demo --source run.dcm            any image source

playback_node and segmentation_node run as processes of their own, in a ROS domain that nobody
else uses; this process records what comes back, and draws only when all is over. It leaves
report.json, overlay.mp4, contact_sheet.png and tip_and_latency.png in the output folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rclpy.utilities import get_rmw_implementation_identifier

from fedefm_core.perception.metadata import read_metadata
from fedefm_core.perception.models import resolve_model
from fedefm_core.provenance import file_sha256, provenance
from fedefm_core.simulation import KINDS
from fedefm_ros import interface
from fedefm_ros.children import (
    start_node,
)
from fedefm_ros.demo_pictures import draw_run
from fedefm_ros.demo_rate import MIN_ANSWERS, answered_hz, rate_held
from fedefm_ros.demo_report import percentiles, print_summary, read_sent, summarise
from fedefm_ros.playback import SIMULATOR, PlaybackSource, open_playback
from fedefm_ros.recorder import Recorder, Recording
from fedefm_ros.transport import LARGE_DATA
from fedefm_ros.watch import Watch, exit_code, own_domain, spinning, watching

POLL_S = 0.05
ANSWER_TIMEOUT_S = 30.0  # for what a node says at once
REHEARSAL_S = 2.5  # at least, to find the rate that this machine holds
SLACK_S = 60.0  # beyond the time that all frames take at their rate
DRAIN_TIMEOUT_S = 2.0  # from the last frame sent to the last mask
READ_AHEAD = 600  # frames; so many are ready before the first is sent
DEFAULT_SEED = 20_280  # from 20260 on, the first patient in whom the model follows the wire
# Only its ratio to camera_info's K[0] matters, and both nodes are given the same number.
SOURCE_DETECTOR_DISTANCE_M = 1.0
RATE_HELP = (
    "frames a second; 0: the source's own (the simulator's is 30), or fewer where this machine "
    "does not segment so many"
)
REPORT, SENT_LOG = "report.json", "sent.jsonl"


@dataclass(frozen=True)
class Options:
    """What was asked for; source '' is the simulator, model '' the shipped default, record '' no
    recording.

    rate: 0 is the source's own, or less where this machine does not segment so many.
    """

    source: str
    out: Path
    frames: int
    rate: float
    model: str
    runtime: str
    kind: str
    seed: int
    domain: int
    timeout: float
    record: str = ""

    @property
    def logs(self) -> Path:
        """Folder of the nodes' logs and parameter files."""
        return self.out / "logs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0, or 1 with a sentence on stderr, or 130 when interrupted."""
    options = _parse(arguments)
    return exit_code(
        lambda: print_summary(run(options), options.out), "Interrupted; both nodes are stopped."
    )


def run(options: Options) -> dict[str, Any]:
    """Play, record, draw and write the report, which is returned.

    Raises FrameError or ModelFileError before anything is started, ChildError when a node died,
    WaitError when nothing came back in time.
    """
    source = _open(options)
    model = resolve_model(options.model or None)
    read_metadata(model)  # refuses a damaged file now rather than in the node
    options.logs.mkdir(parents=True, exist_ok=True)
    for stale in (options.out / REPORT, options.logs / SENT_LOG):
        stale.unlink(missing_ok=True)
    recording, rate = _play(options, source, model)
    print("Drawing ...", flush=True)
    records = draw_run(source, read_sent(options.logs / SENT_LOG), recording, options.out)
    report = {
        **summarise(records, recording.masks_received_ns),
        "node_ms": {  # as the node measures itself: of its own work, and from the stamp on
            "processing": percentiles(recording.durations_ms[interface.PROCESSING_TIME]),
            "stamp_to_tip": percentiles(recording.durations_ms[interface.PIPELINE_LATENCY]),
        },
        "source": source.name,
        "rate": asdict(rate),
        **_surroundings(options, model, recording),
    }
    (options.out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return report


def _surroundings(options: Options, model: Path, recording: Recording) -> dict[str, Any]:
    """What the figures were taken with: model, runtime, ROS, settings, versions and machine."""
    metadata = asdict(read_metadata(model))
    return {
        "model": {**metadata, "file": model.name, "file_sha256": file_sha256(model)},
        "runtime": recording.diagnostics.get("runtime", ""),
        "node_diagnostics_after_the_run": recording.diagnostics,
        "ros": {
            "rclpy": _rclpy_version(),
            "rmw": get_rmw_implementation_identifier(),
            "transport": LARGE_DATA,
        },
        "settings": {**asdict(options), "out": str(options.out)},
        **provenance(),
    }


def _rclpy_version() -> str:
    for name in ("rclpy", "ros-rclpy"):  # a ROS installation's, and the wheels'
        with suppress(PackageNotFoundError):
            return version(name)
    return ""


def _open(options: Options) -> PlaybackSource:
    return open_playback(
        options.source or SIMULATOR,
        options.rate,
        options.frames,
        options.seed,
        options.kind or None,
    )


@dataclass(frozen=True)
class Rate:
    """Frames a second: of the source, as played, and as answered in a rehearsal of the source's.

    answered_hz: None when the rate was given, and so nothing was rehearsed.
    """

    source_hz: float
    played_hz: float
    answered_hz: float | None = None


def _play(options: Options, source: PlaybackSource, model: Path) -> tuple[Recording, Rate]:
    """Run both nodes for one playback and return what came back."""
    with own_domain(options.domain), watching() as watch, spinning(Recorder()) as recorder:
        rate = _run_nodes(options, source, model, recorder, watch)
        recording = recorder.recording()
    return recording, rate


def _run_nodes(
    options: Options, source: PlaybackSource, model: Path, recorder: Recorder, watch: Watch
) -> Rate:
    """Start both nodes and wait for the end of playback; return the rate of it."""
    print("Starting both nodes ...", flush=True)
    player = start_node("playback_node", _playing(options), options.logs, ends_by_itself=True)
    watch.children.append(player)
    watch.children.append(
        start_node("segmentation_node", _segmenting(options, model), options.logs)
    )
    if options.record:
        path = str(Path(options.record).resolve())
        watch.children.append(start_node("record_node", {"path": path}, options.logs))
    # playback_node rehearses with the first frame: an answer proves that discovery is over.
    watch.wait(recorder.has_answer, options.timeout, "an answer to the first frame")
    rate = Rate(source.rate_hz, source.rate_hz)
    if not options.rate:
        rate = _rehearse(source, recorder, watch, options.timeout)
    watch.wait(recorder.start_playback, ANSWER_TIMEOUT_S, "playback_node to begin")
    seconds = options.frames / rate.played_hz
    print(
        f"Playing {options.frames} frames at {rate.played_hz:.3g} Hz: {seconds:.0f} s ...",
        flush=True,
    )
    watch.wait(lambda: player.process.poll() is not None, seconds + SLACK_S, "the end of playback")
    last = read_sent(options.logs / SENT_LOG)[-1].stamp_ns
    watch.poll(lambda: recorder.has_answer(last), DRAIN_TIMEOUT_S)
    recorder.forget_diagnostics()  # those to come count all frames
    watch.wait(recorder.has_diagnostics, ANSWER_TIMEOUT_S, "the node's diagnostics")
    return rate


def _rehearse(source: PlaybackSource, recorder: Recorder, watch: Watch, timeout_s: float) -> Rate:
    """Find the rate that this machine holds, say so when it is not the source's, and set it."""
    skipped = len(recorder.answered_ns())  # while the nodes found each other
    began = time.monotonic()

    def is_over() -> bool:
        enough = len(recorder.answered_ns()) - skipped >= MIN_ANSWERS
        return enough and time.monotonic() - began >= REHEARSAL_S

    watch.wait(is_over, timeout_s, f"{MIN_ANSWERS} answers to the first frame")
    answered = recorder.answered_ns()[skipped:]
    rate = Rate(source.rate_hz, rate_held(answered, source.rate_hz), answered_hz(answered))
    if rate.played_hz < rate.source_hz:
        print(
            f"Of {rate.source_hz:.3g} frames a second this machine answers "
            f"{rate.answered_hz:.1f}: playing slower. (make demo RATE={rate.source_hz:.3g} plays "
            "at full speed and loses frames.)",
            flush=True,
        )
        watch.wait(
            lambda: recorder.set_playback_rate(rate.played_hz),
            ANSWER_TIMEOUT_S,
            "playback_node to take another rate",
        )
    return rate


def _segmenting(options: Options, model: Path) -> dict[str, object]:
    return {
        "model": str(model.resolve()),
        "runtime": options.runtime,
        "autostart": True,
        "source_detector_distance": SOURCE_DETECTOR_DISTANCE_M,
    }


def _playing(options: Options) -> dict[str, object]:
    return {
        "source": options.source or SIMULATOR,
        "rate": options.rate,
        "limit": options.frames,
        "loop": True,  # a source that is shorter is played again
        "kind": options.kind,
        "seed": options.seed,
        "source_detector_distance": SOURCE_DETECTOR_DISTANCE_M,
        "read_ahead": min(options.frames, READ_AHEAD),
        "wait_for_start": True,
        "log_file": str(options.logs / SENT_LOG),
    }


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m fedefm_ros.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--source", default="", help="file or folder; empty: the simulator")
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--frames", type=_count, default=300)
    parser.add_argument("--rate", type=_rate, default=0.0, help=RATE_HELP)
    parser.add_argument("--model", default="", help="file or name; empty: the shipped default")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--kind", default="", choices=("", *KINDS), help="of simulated images")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of the simulator")
    parser.add_argument("--record", default="", help="folder to make for an MCAP recording")
    parser.add_argument("--domain", type=int, default=0, help="ROS domain; 0: one that is free")
    parser.add_argument(
        "--timeout",
        type=float,
        default=180.0,
        help="seconds to read all frames and load the model",
    )
    return Options(**vars(parser.parse_args(arguments)))


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more (got {value})")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1000 Hz (got {value})")
    return value


if __name__ == "__main__":
    sys.exit(main())
