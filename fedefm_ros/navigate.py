# SPDX-License-Identifier: Apache-2.0
"""The closed loop with no robot: images to tips, tips to motion, motion to images.

    python -m fedefm_ros.navigate --out out/navigate          20 cases, then each trouble
    python -m fedefm_ros.navigate --seeds 3 --troubles ''     three cases, no trouble
    python -m fedefm_ros.navigate --own-time                  without nodes, see own_time.py

fluoroscopy_node, segmentation_node, motion_guard_node, navigation_node and follower_robot_node run
as processes of their own, in a ROS domain that nobody else uses; this process gives them one case
after the other and records. All figures are taken from the recordings, when all is over.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from fedefm_core.perception import Segmenter, open_runtime
from fedefm_core.perception.metadata import read_metadata
from fedefm_core.perception.models import resolve_model
from fedefm_core.provenance import file_sha256, provenance
from fedefm_core.simulation.navigation_case import random_case
from fedefm_ros import interface
from fedefm_ros.children import start_node, stop_node
from fedefm_ros.demo_rate import MIN_ANSWERS, answered_hz, rate_held
from fedefm_ros.messages import stamp_to_ns
from fedefm_ros.navigate_pictures import draw_run
from fedefm_ros.navigate_report import Episode, print_summary, read_episode, summarise
from fedefm_ros.navigator import Phase
from fedefm_ros.own_time import Times, play
from fedefm_ros.record_node import RecordNode
from fedefm_ros.recorder import RECORDER_QOS, Call
from fedefm_ros.simulated_view import TROUBLES
from fedefm_ros.watch import WaitError, Watch, exit_code, own_domain, spinning, watching

RATE_HZ = 15.0  # at most; fewer where this machine does not segment so many
LEAST_HZ = 1.5  # answered; on a machine that is slower the loop cannot be closed
OWN_TIME_HZ = 10.0
REHEARSAL_S = 2.5
ANSWER_TIMEOUT_S = 60.0
START_TIMEOUT_S = 180.0
LINGER_S = 0.5  # of recording, after a case has ended
SOURCE_DETECTOR_DISTANCE_M = 1.0
EASY_HZ = 10.0  # a machine that answers fewer frames is given more time for everything
CASE_PERIODS = 500  # of the camera: longer, and a case has failed
LEAST_CASE_S = 60.0
REPORT = "report.json"


@dataclass(frozen=True)
class Options:
    """What was asked for. troubles: names of fluoroscopy_node's; each gets trouble_seeds cases."""

    out: Path
    seeds: int
    first_seed: int
    troubles: tuple[str, ...]
    trouble_seeds: int
    rate: float
    model: str
    runtime: str
    domain: int
    own_time: bool

    @property
    def cases(self) -> list[tuple[str, int]]:
        """Trouble and seed of each case, in order."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [("none", seed) for seed in seeds] + [
            (trouble, seed) for trouble in self.troubles for seed in seeds[: self.trouble_seeds]
        ]


@dataclass(frozen=True)
class Pace:
    """Frames a second as rehearsed and as played; and the limits that follow from them."""

    answered_hz: float | None
    camera_hz: float

    @property
    def slack(self) -> float:
        """How much longer everything may take than on a machine that is fast enough."""
        answered = self.camera_hz if self.answered_hz is None else self.answered_hz
        return min(max(EASY_HZ / answered, 1.0), 10.0)

    @property
    def case_s(self) -> float:
        """Longest time of a case."""
        return max(LEAST_CASE_S, CASE_PERIODS / self.camera_hz)


class Operator(RecordNode):
    """Records, gives the nodes their cases, and hears how they fare."""

    def __init__(self) -> None:
        super().__init__()
        self.answered_ns: list[int] = []
        self.navigation: dict[str, str] = {}
        self.create_subscription(Image, interface.MASK, self._on_mask, RECORDER_QOS)
        self.create_subscription(
            DiagnosticArray, interface.NAVIGATION_STATE, self._on_navigation, RECORDER_QOS
        )
        self._reset: Any = self.create_client(Trigger, f"{interface.NODE_NAME}/reset_tracking")
        self._setters: dict[str, Any] = {
            name: self.create_client(SetParameters, f"{name}/set_parameters")
            for name in ("fluoroscopy_node", "navigation_node")
        }

    def set(self, watch: Watch, name: str, **values: int | float | str) -> None:
        """Set parameters of a node, and wait until it has taken them."""
        call = Call(self._setters[name])
        request = SetParameters.Request(
            parameters=[
                Parameter(name=key, value=_parameter_value(v)) for key, v in values.items()
            ]
        )
        watch.wait(lambda: call.answered(request), ANSWER_TIMEOUT_S, f"{name} to take {values}")

    def reset_tracking(self, watch: Watch) -> None:
        """Let segmentation_node forget the case before."""
        call = Call(self._reset)
        watch.wait(
            lambda: call.answered(Trigger.Request()), ANSWER_TIMEOUT_S, "tracks to be forgotten"
        )

    def has_ended(self, seed: int) -> bool:
        """Has the navigator reached its target?"""
        said = self.navigation
        return said.get("seed") == str(seed) and said.get("phase") == Phase.REACHED.value

    def _on_mask(self, message: Image) -> None:
        self.answered_ns.append(stamp_to_ns(message.header.stamp))

    def _on_navigation(self, message: DiagnosticArray) -> None:
        self.navigation = {pair.key: pair.value for pair in message.status[0].values}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cases; 0, or 1 with a sentence on stderr, or 130 when interrupted."""
    options = _parse(arguments)
    return exit_code(
        lambda: print_summary(run(options), options.out), "Interrupted; all nodes are stopped."
    )


def run(options: Options) -> dict[str, Any]:
    """Play all cases, draw, and write the report, which is returned.

    Raises ModelFileError before anything is started, ChildError when a node died, WaitError when
    something did not come in time.
    """
    model = resolve_model(options.model or None)
    metadata = read_metadata(model)
    options.out.mkdir(parents=True, exist_ok=True)  # now: it may not be writable
    for stale in ("logs", "recordings"):
        shutil.rmtree(options.out / stale, ignore_errors=True)
    (options.out / REPORT).unlink(missing_ok=True)
    play_all = _play_in_own_time if options.own_time else _play_live
    pace, episodes = play_all(options, model)
    draw_run(episodes, [_pictured(options, one) for one in episodes], options.out)
    report = {
        **summarise(episodes),
        "loop": "in its own time" if options.own_time else "nodes",
        "pace": {**asdict(pace), "slack": pace.slack},
        "model": {**asdict(metadata), "file": model.name, "file_sha256": file_sha256(model)},
        "settings": {**asdict(options), "out": str(options.out)},
        **provenance(),
    }
    (options.out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return report


def recording(options: Options, trouble: str, seed: int) -> Path:
    """Where a case is recorded."""
    return options.out / "recordings" / f"{trouble}_{seed:04d}"


def _pictured(options: Options, episode: Episode) -> Path | None:
    """The recording with the images of a case: the first of each trouble."""
    if options.own_time or episode.seed != options.first_seed:
        return None
    return recording(options, episode.trouble, episode.seed)


def _play_in_own_time(options: Options, model: Path) -> tuple[Pace, list[Episode]]:
    segmenter = Segmenter(open_runtime(model, options.runtime))
    segmenter.warm_up()
    times = Times(camera_hz=options.rate or OWN_TIME_HZ)
    episodes = []
    for trouble, seed in options.cases:
        episode = play(segmenter, seed, trouble, times)
        _tell(seed, trouble, episode.said_reached, episode.seconds, episode.retries)
        episodes.append(episode)
    return Pace(None, times.camera_hz), episodes


def _play_live(options: Options, model: Path) -> tuple[Pace, list[Episode]]:
    pace = _play(options, model)
    print("Reading the recordings ...", flush=True)
    return pace, [
        read_episode(recording(options, trouble, seed), seed, trouble)
        for trouble, seed in options.cases
    ]


def _play(options: Options, model: Path) -> Pace:
    with own_domain(options.domain), watching() as watch, spinning(Operator()) as operator:
        pace = _start(options, model, operator, watch)
        for trouble, seed in options.cases:
            _play_case(options, trouble, seed, pace, operator, watch)
    return pace


def _start(options: Options, model: Path, operator: Operator, watch: Watch) -> Pace:
    """Start all nodes at the rate that this machine holds."""
    print("Starting the nodes ...", flush=True)
    logs = options.out / "logs"
    first = {"seed": options.first_seed, "rate": options.rate or RATE_HZ}
    first["source_detector_distance"] = SOURCE_DETECTOR_DISTANCE_M
    watch.children.append(start_node("fluoroscopy_node", first, logs))
    watch.children.append(start_node("follower_robot_node", {}, logs))
    pace = Pace(None, options.rate)
    if not options.rate:
        pace = _rehearse(options, model, operator, watch)
        operator.set(watch, "fluoroscopy_node", rate=pace.camera_hz)
    watch.children.append(start_node("segmentation_node", _segmenting(options, model, pace), logs))
    watch.children.append(start_node("motion_guard_node", guarding(pace), logs))
    watch.children.append(start_node("navigation_node", {}, logs))
    seen = len(operator.answered_ns)
    watch.wait(lambda: len(operator.answered_ns) > seen, START_TIMEOUT_S, "an answer to a frame")
    return pace


def _rehearse(options: Options, model: Path, operator: Operator, watch: Watch) -> Pace:
    """Find the rate that this machine holds, and say so."""
    settings = _segmenting(options, model, Pace(None, RATE_HZ))
    child = start_node("segmentation_node", settings, options.out / "logs")
    watch.children.append(child)
    watch.wait(lambda: bool(operator.answered_ns), START_TIMEOUT_S, "an answer to the first frame")
    skipped, began = len(operator.answered_ns), time.monotonic()

    def is_over() -> bool:
        enough = len(operator.answered_ns) - skipped >= MIN_ANSWERS
        return enough and time.monotonic() - began >= REHEARSAL_S

    watch.wait(is_over, START_TIMEOUT_S, f"{MIN_ANSWERS} answers")
    answered = operator.answered_ns[skipped:]
    pace = Pace(answered_hz(answered), rate_held(answered, RATE_HZ))
    if answered_hz(answered) < LEAST_HZ:
        raise WaitError(
            f"This machine answers {pace.answered_hz:.1f} frames a second, and the loop needs "
            f"{LEAST_HZ:g}: it is too slow, or too busy. --own-time does without."
        )
    watch.children.remove(child)
    stop_node(child)
    print(
        f"This machine answers {pace.answered_hz:.1f} of {RATE_HZ:g} frames a second: the camera "
        f"sends {pace.camera_hz:g}.",
        flush=True,
    )
    return pace


def _segmenting(options: Options, model: Path, pace: Pace) -> dict[str, object]:
    return {
        "model": str(model.resolve()),
        "runtime": options.runtime,
        "autostart": True,
        "source_detector_distance": SOURCE_DETECTOR_DISTANCE_M,
        "max_age": 0.2 * pace.slack,
        "image_timeout": max(0.5, 4 / pace.camera_hz),
        "tracker": {"bridge_time_s": max(0.25, 3.2 / pace.camera_hz)},
    }


def guarding(pace: Pace) -> dict[str, object]:
    """Parameters of the guard: its defaults, but for the camera and a machine that is slow."""
    return {
        "camera_rate_hz": float(pace.camera_hz),
        "require_metres": True,
        "max_age_s": 0.25 * pace.slack,
        "state_timeout_s": 0.08 * pace.slack,
        "max_pause_s": 0.1 * pace.slack,
    }


def _play_case(
    options: Options, trouble: str, seed: int, pace: Pace, operator: Operator, watch: Watch
) -> None:
    """Play and record one case, to its end or its longest time."""
    random_case(seed)  # a seed without a case is told here, not in the nodes
    operator.set(watch, "navigation_node", seed=-1)
    operator.set(watch, "fluoroscopy_node", seed=seed, trouble=trouble)
    operator.reset_tracking(watch)
    operator.open(recording(options, trouble, seed), images=seed == options.first_seed)
    operator.set(watch, "navigation_node", seed=seed)
    began = time.monotonic()
    reached = watch.poll(lambda: operator.has_ended(seed), pace.case_s)
    watch.poll(lambda: False, LINGER_S)
    operator.close()
    retries = int(operator.navigation.get("retries", "0"))
    _tell(seed, trouble, reached, time.monotonic() - began, retries)


def _tell(seed: int, trouble: str, reached: bool, seconds: float, retries: int) -> None:
    how = "reached" if reached else "given up"
    print(
        f"seed {seed}, trouble {trouble.replace('_', ' ')}: {how} after {seconds:.0f} s, "
        f"went back {retries} times",
        flush=True,
    )


def _parameter_value(value: int | float | str) -> ParameterValue:
    if isinstance(value, int):
        return ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)
    if isinstance(value, float):
        return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m fedefm_ros.navigate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path("out/navigate"))
    parser.add_argument("--seeds", type=_count, default=20, help="cases without trouble")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--troubles", type=_troubles, default=TROUBLES[1:], help="by name, with commas between"
    )
    parser.add_argument("--trouble-seeds", type=_count, default=1, help="cases of each trouble")
    parser.add_argument("--rate", type=float, default=0.0, help="frames a second; 0: rehearsed")
    parser.add_argument("--model", default="", help="file or name; empty: the shipped default")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--domain", type=int, default=0, help="ROS domain; 0: one that is free")
    parser.add_argument("--own-time", action="store_true", help="without nodes: see own_time.py")
    options = Options(**vars(parser.parse_args(arguments)))
    return replace(options, trouble_seeds=min(options.trouble_seeds, options.seeds))


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more (got {value})")
    return value


def _troubles(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    for name in names:
        if name not in TROUBLES[1:]:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(TROUBLES[1:])} (got {name})")
    return names


if __name__ == "__main__":
    sys.exit(main())
