# SPDX-License-Identifier: Apache-2.0
"""The C++ controller of docs/integration.md compiles, where a compiler and rclcpp are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "integration.md"
PREFIXES = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if p]


def code() -> str:
    (found,) = re.findall(r"```cpp\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


def test_it_asks_for_what_the_guard_offers() -> None:
    assert ".deadline(50ms)" in code()
    assert "ManualByTopic" in code()
    assert ".liveliness_lease_duration(100ms)" in code()


@pytest.mark.slow
def test_it_compiles(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    roots = [p / "include" for p in PREFIXES if (p / "include" / "rclcpp").is_dir()]
    if compiler is None or not roots:
        pytest.skip("needs a C++ compiler and the headers of rclcpp")
    source = tmp_path / "controller.cpp"
    source.write_text(code())
    # Since Humble each package has a folder of its own below include.
    folders = [root for prefix in PREFIXES for root in (prefix / "include").glob("*")]
    paths = [word for folder in [*roots, *folders] for word in ("-isystem", str(folder))]
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    result = subprocess.run(
        [*command, *paths, str(source)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
