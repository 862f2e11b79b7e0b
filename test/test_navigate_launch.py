# SPDX-License-Identifier: Apache-2.0
"""launch/navigate_sim.launch.py: what it declares, and with launch installed, what it starts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from launch_files import FOLDER, declared, environment, load, started

from fedefm_ros.entry import END_WITH
from fedefm_ros.transport import LARGE_DATA, TRANSPORT_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH_FILE = FOLDER / "navigate_sim.launch.py"
DECLARED = declared(LAUNCH_FILE)
LOOP = [
    "fluoroscopy_node",
    "segmentation_node",
    "motion_guard_node",
    "follower_robot_node",
    "navigation_node",
]


def test_every_argument_is_described_and_documented() -> None:
    section = (REPOSITORY / "docs" / "navigation.md").read_text()
    for name, keywords in DECLARED.items():
        assert keywords["description"], name
        assert "default_value" in keywords, name
        assert f"`{name}`" in section


def test_the_troubles_are_those_of_the_view() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")
    from fedefm_ros.simulated_view import TROUBLES

    assert tuple(DECLARED["trouble"]["choices"]) == TROUBLES


def test_the_file_holds_no_event_handlers() -> None:
    assert "event_handler" not in LAUNCH_FILE.read_text().lower()


# --- with launch ------------------------------------------------------------------------------


@pytest.fixture
def launch_file() -> ModuleType:
    return load(LAUNCH_FILE)


def test_it_starts_the_loop_and_both_ends_of_the_images_alike(launch_file: ModuleType) -> None:
    nodes = started(launch_file)
    assert [node.node_executable for node in nodes] == LOOP
    for node in nodes:
        assert environment(node)[TRANSPORT_VARIABLE] == LARGE_DATA
        assert END_WITH in environment(node)


def test_what_perceives_and_what_guards_start_anew(launch_file: ModuleType) -> None:
    again = [node.node_executable for node in started(launch_file) if node._ExecuteLocal__respawn]
    assert again == ["segmentation_node", "motion_guard_node"]


@pytest.mark.parametrize(("name", "value"), [("rate", "fast"), ("rate", "0"), ("seed", "-1")])
def test_wrong_numbers_are_answered_with_a_sentence(
    launch_file: ModuleType, name: str, value: str
) -> None:
    with pytest.raises(RuntimeError, match=rf"'{name}' must be a number from .*got '{value}'"):
        started(launch_file, **{name: value})


def test_a_recording_adds_the_record_node(launch_file: ModuleType) -> None:
    nodes = started(launch_file, record="runs/a")
    assert [node.node_executable for node in nodes] == [*LOOP, "record_node"]
