# SPDX-License-Identifier: Apache-2.0
"""launch/motion_guard.launch.py: what it declares, and with launch installed, what it starts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from launch_files import FOLDER, declared, environment, load, started

from fedefm_ros.entry import END_WITH
from fedefm_ros.transport import LARGE_DATA, TRANSPORT_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH_FILE = FOLDER / "motion_guard.launch.py"
DECLARED = declared(LAUNCH_FILE)


def test_every_argument_is_described_and_documented() -> None:
    assert list(DECLARED) == ["namespace", "params_file", "transport", "camera_rate", "log_level"]
    page = (REPOSITORY / "docs" / "ros.md").read_text()
    section = page.partition("## motion_guard_node")[2].partition("\n## ")[0]
    for name, keywords in DECLARED.items():
        assert keywords["description"], name
        assert "default_value" in keywords, name
        assert f"`{name}`" in section


def test_the_file_holds_no_event_handlers() -> None:
    assert "event_handler" not in LAUNCH_FILE.read_text().lower()


# --- with launch ------------------------------------------------------------------------------


@pytest.fixture
def launch_file() -> ModuleType:
    return load(LAUNCH_FILE)


@pytest.mark.parametrize("transport", ["default", "large_data"])
def test_it_starts_the_guard_with_the_transport_that_is_asked_for(
    launch_file: ModuleType, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    (node,) = started(launch_file, transport=transport)
    assert node.node_executable == "motion_guard_node"
    added = environment(node)
    assert END_WITH in added
    wide = {TRANSPORT_VARIABLE: LARGE_DATA, "ROS_LOCALHOST_ONLY": "0"}
    assert (wide.items() <= added.items()) is (transport == "large_data")


def test_a_camera_rate_goes_to_the_guard(launch_file: ModuleType) -> None:
    (node,) = started(launch_file, camera_rate="7.5")
    (given,) = node._Node__parameters
    assert [name[0].text for name in given] == ["camera_rate_hz"]
    with pytest.raises(RuntimeError, match="'camera_rate' must be a number"):
        started(launch_file, camera_rate="slow")


def test_a_missing_params_file_is_answered_with_a_sentence(launch_file: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"'params_file': there is no file '/nowhere.yaml'"):
        started(launch_file, params_file="/nowhere.yaml")
