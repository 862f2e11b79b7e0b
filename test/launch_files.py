# SPDX-License-Identifier: Apache-2.0
"""A launch file as tests see it: read without launch, and run with it where it is installed."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "launch"


def declared(file: Path) -> dict[str, dict[str, object]]:
    """Argument -> keywords, read from the source, without launch."""
    return {
        ast.literal_eval(node.args[0]): {
            word.arg: ast.literal_eval(word.value) for word in node.keywords
        }
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument"
    }


def load(file: Path) -> ModuleType:
    """The launch file as a module; skips without launch_ros."""
    pytest.importorskip("launch_ros", reason="needs ROS 2's launch_ros, which has no wheel")
    spec = importlib.util.spec_from_file_location(file.stem.replace(".", "_"), file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(launch_file: ModuleType, **given: str) -> list:
    """The nodes that these arguments start."""
    from launch import LaunchContext

    context = LaunchContext()
    for name, keywords in declared(Path(launch_file.__file__)).items():
        context.launch_configurations[name] = given.get(name, str(keywords["default_value"]))
    return launch_file.nodes(context)


def environment(node: object) -> dict[str, str]:
    """What is added to the environment of a node."""
    return {name[0].text: value[0].text for name, value in node.additional_env}
