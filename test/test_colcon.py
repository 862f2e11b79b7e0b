# SPDX-License-Identifier: Apache-2.0
"""The package as a robot gets it: built, tested and run by colcon, here from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("colcon_core", reason="needs colcon")
pytest.importorskip("colcon_python_setup_py", reason="needs colcon-common-extensions")

pytestmark = pytest.mark.timeout(1200)

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "fedefm_ros"
# What a build and its tests need; listed, so that a virtual environment is never copied.
FOLDERS = ("fedefm_core", "fedefm_ros", "launch", "config", "resource", "test")
FILES = (
    *("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "LICENSE", "Makefile"),
    *("constraints.txt", "constraints-ros.txt"),
)


def run(command: list[str], cwd: Path, **environment: str) -> str:
    """Run a command to its end; return its output, fail with that output when it fails."""
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=1000,
    )
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}"
    return result.stdout


def colcon(workspace: Path, verb: str, *options: str) -> str:
    """Run a verb of colcon in a workspace, with this interpreter."""
    log = ["--log-base", str(workspace / "log")]
    return run([sys.executable, "-m", "colcon", *log, verb, *options], workspace)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a colcon workspace that holds a copy of the package, built."""
    root = tmp_path_factory.mktemp("workspace")
    source = root / "src" / PACKAGE
    source.mkdir(parents=True)
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
    for name in FILES:
        shutil.copy2(REPOSITORY / name, source / name)
    colcon(root, "build")
    return root


@pytest.fixture(scope="module")
def prefix(workspace: Path) -> Path:
    """Return where colcon installed the package."""
    return workspace / "install" / PACKAGE


@pytest.fixture(scope="module")
def site_packages(prefix: Path) -> Path:
    """Return the folder of the installed Python packages."""
    return next(prefix.glob("lib/python3*/site-packages"))


def test_executables_lie_where_ros2_run_looks(prefix: Path) -> None:
    for name in ("segmentation_node", "playback_node", "motion_guard_node", "fedefm_core"):
        assert os.access(prefix / "lib" / PACKAGE / name, os.X_OK), name


def test_share_holds_what_launch_and_ament_look_for(prefix: Path) -> None:
    share = prefix / "share"
    assert (share / "ament_index/resource_index/packages" / PACKAGE).is_file()
    assert (share / PACKAGE / "package.xml").is_file()
    for folder in ("launch", "config"):
        sources = {path.name for path in (REPOSITORY / folder).glob("*") if path.is_file()}
        installed = {path.name for path in (share / PACKAGE / folder).glob("*")}
        assert sources == installed


def test_package_data_is_installed(site_packages: Path) -> None:
    models = REPOSITORY / "fedefm_core" / "models"
    sources = {path.name for suffix in ("*.onnx", "*.md") for path in models.glob(suffix)}
    installed = {path.name for path in (site_packages / "fedefm_core" / "models").iterdir()}
    assert sources <= installed


def test_the_core_runs_from_the_install_space(site_packages: Path, tmp_path: Path) -> None:
    where = "import fedefm_core; print(fedefm_core.__file__)"
    path = {"PYTHONPATH": f"{site_packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    origin = run([sys.executable, "-c", where], tmp_path, **path)
    assert Path(origin.strip()).is_relative_to(site_packages)
    assert "Usage" in run([sys.executable, "-m", "fedefm_core", "--help"], tmp_path, **path)


def test_an_executable_starts_from_the_sourced_install_space(
    workspace: Path, prefix: Path
) -> None:
    executable = prefix / "lib" / PACKAGE / "fedefm_core"
    script = f'. "{workspace}/install/local_setup.sh" && exec "{executable}" --help'
    assert "Usage" in run(["sh", "-c", script], workspace)


def test_colcon_test_runs_one_marker(workspace: Path) -> None:
    arguments = ["--packages-select", PACKAGE, "--return-code-on-test-failure"]
    colcon(
        workspace, "test", *arguments, "--event-handlers", "console_direct+",
        "--pytest-args", "-m", "packaging",
    )  # fmt: skip
    result = colcon(workspace, "test-result", "--all", "--test-result-base", "build")
    assert "0 errors, 0 failures" in result
    assert not result.strip().endswith("Summary: 0 tests, 0 errors, 0 failures, 0 skipped")
