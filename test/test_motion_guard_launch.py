# SPDX-License-Identifier: Apache-2.0
"""launch/motion_guard.launch.py: what it declares, and with launch installed, what it starts."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from fedefm_ros.entry import END_WITH
from fedefm_ros.transport import LARGE_DATA, TRANSPORT_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH_FILE = REPOSITORY / "launch" / "motion_guard.launch.py"


def declared() -> dict[str, dict[str, object]]:
    """Argument -> keywords, read from the source, without launch."""
    return {
        ast.literal_eval(node.args[0]): {
            word.arg: ast.literal_eval(word.value) for word in node.keywords
        }
        for node in ast.walk(ast.parse(LAUNCH_FILE.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument"
    }


def test_every_argument_is_described_and_documented() -> None:
    assert list(declared()) == ["namespace", "params_file", "transport", "log_level"]
    page = (REPOSITORY / "docs" / "ros.md").read_text()
    section = page.partition("## motion_guard_node")[2].partition("\n## ")[0]
    for name, keywords in declared().items():
        assert keywords["description"], name
        assert "default_value" in keywords, name
        assert f"`{name}`" in section


def test_the_file_holds_no_event_handlers() -> None:
    assert "event_handler" not in LAUNCH_FILE.read_text().lower()


# --- with launch ------------------------------------------------------------------------------


@pytest.fixture
def launch_file() -> ModuleType:
    pytest.importorskip("launch_ros", reason="needs ROS 2's launch_ros, which has no wheel")
    spec = importlib.util.spec_from_file_location("motion_guard_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(launch_file: ModuleType, **given: str) -> list:
    """The nodes that these arguments start."""
    from launch import LaunchContext

    context = LaunchContext()
    for name, keywords in declared().items():
        context.launch_configurations[name] = given.get(name, str(keywords["default_value"]))
    return launch_file.nodes(context)


@pytest.mark.parametrize("transport", ["default", "large_data"])
def test_it_starts_the_guard_with_the_transport_that_is_asked_for(
    launch_file: ModuleType, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    (node,) = started(launch_file, transport=transport)
    assert node.node_executable == "motion_guard_node"
    environment = {name[0].text: value[0].text for name, value in node.additional_env}
    assert END_WITH in environment
    wide = {TRANSPORT_VARIABLE: LARGE_DATA, "ROS_LOCALHOST_ONLY": "0"}
    assert (wide.items() <= environment.items()) is (transport == "large_data")


def test_a_missing_params_file_is_answered_with_a_sentence(launch_file: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"'params_file': there is no file '/nowhere.yaml'"):
        started(launch_file, params_file="/nowhere.yaml")
