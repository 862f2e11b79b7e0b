# SPDX-License-Identifier: Apache-2.0
"""launch/segment.launch.py: what it declares, and with launch installed, what it starts."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from launch_files import FOLDER, declared, environment, load, started

from fedefm_ros.entry import END_WITH
from fedefm_ros.transport import LARGE_DATA, TRANSPORT_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH_FILE = FOLDER / "segment.launch.py"
DECLARED = declared(LAUNCH_FILE)
DOCUMENT = REPOSITORY / "docs" / "ros.md"
ARGUMENTS = [
    "model",
    "runtime",
    "image_topic",
    "image_transport",
    "namespace",
    "params_file",
    "source",
    "rate",
    "transport",
    "autostart",
    "overlay",
    "record",
    "log_level",
]


def test_arguments_are_those_promised_and_described() -> None:
    assert list(DECLARED) == ARGUMENTS
    for name, keywords in DECLARED.items():
        assert keywords["description"], name
        assert "default_value" in keywords, name


def test_choices_are_those_of_the_parameters() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")
    from fedefm_ros.segmentation_parameters import SPECS

    specs = {spec.name: spec for spec in SPECS}
    for name in ("runtime", "image_transport"):
        assert tuple(DECLARED[name]["choices"]) == ("", *specs[name].choices)


def test_the_range_of_the_rate_is_that_of_the_parameter() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")
    from fedefm_ros.playback_node import PARAMETERS, RATE

    (rate,) = (spec for spec in PARAMETERS if spec.name == RATE)
    assert f"RATE_RANGE = {rate.minimum}, {rate.maximum}" in LAUNCH_FILE.read_text()


def test_arguments_and_defaults_are_documented() -> None:
    section = DOCUMENT.read_text().partition("## Launch")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\S*) ?\|", section, re.MULTILINE)
    assert rows == [(name, str(word["default_value"])) for name, word in DECLARED.items()]


def test_the_file_holds_no_event_handlers() -> None:
    assert "event_handler" not in LAUNCH_FILE.read_text().lower()


# --- with launch ------------------------------------------------------------------------------


@pytest.fixture
def launch_file() -> ModuleType:
    return load(LAUNCH_FILE)


def test_a_live_topic_starts_one_node_and_keeps_the_robots_transport(
    launch_file: ModuleType,
) -> None:
    (node,) = started(launch_file)
    assert node.node_executable == "segmentation_node"
    assert set(environment(node)) == {END_WITH}
    assert not ends_all(node)  # it may be a part of a robot's own launch file


def ends_all(node: Any) -> bool:
    """Whether the end of this node is that of the launch."""
    return bool(node._ExecuteLocal__on_exit)


def test_a_source_adds_the_playback_node_and_sets_both_ends(launch_file: ModuleType) -> None:
    nodes = started(launch_file, source="sim")
    assert [node.node_executable for node in nodes] == ["segmentation_node", "playback_node"]
    assert [ends_all(node) for node in nodes] == [False, True]
    for node in nodes:
        assert environment(node)[TRANSPORT_VARIABLE] == LARGE_DATA
    for node in started(launch_file, source="sim", transport="default"):
        assert TRANSPORT_VARIABLE not in environment(node)


def test_a_segmentation_node_that_died_starts_anew(launch_file: ModuleType) -> None:
    for source in ("", "sim"):
        assert started(launch_file, source=source)[0]._ExecuteLocal__respawn


def test_a_recording_adds_the_record_node(launch_file: ModuleType) -> None:
    *_, recorder = started(launch_file, record="runs/a", image_transport="compressed")
    assert recorder.node_executable == "record_node"
    assert parameters(recorder) == {"path"}
    assert ends_all(recorder)


def parameters(node: Any) -> set[str]:
    """Names of the parameters that an argument, and not params_file, sets."""
    (set_here,) = node._Node__parameters
    return {name[0].text for name in set_here}


def test_a_rate_that_is_not_given_is_left_to_params_file(launch_file: ModuleType) -> None:
    _, playback = started(launch_file, source="sim")
    assert parameters(playback) == {"source", "loop"}
    _, playback = started(launch_file, source="sim", rate="0")
    assert parameters(playback) == {"source", "loop", "rate"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"params_file": "/nowhere.yaml"}, "'params_file': there is no file '/nowhere.yaml'"),
        *(
            ({"source": "sim", "rate": rate}, rf"'rate' must be a number from .*got '{rate}'")
            for rate in ("abc", "nan", "-5", "1e9")
        ),
        ({"rate": "abc"}, r"'rate' must be a number"),  # without a source it would go unnoticed
    ],
)
def test_wrong_arguments_are_answered_with_a_sentence(
    launch_file: ModuleType, given: dict[str, str], sentence: str
) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        started(launch_file, **given)


def test_the_launch_description_declares_all_arguments(launch_file: ModuleType) -> None:
    description = launch_file.generate_launch_description()
    assert [argument.name for argument in description.get_launch_arguments()] == ARGUMENTS
