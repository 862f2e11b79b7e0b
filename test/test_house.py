# SPDX-License-Identifier: Apache-2.0
"""What holds for the repository as a whole: headers, who imports whom, what an import costs."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.house

REPOSITORY = Path(__file__).resolve().parents[1]
HEADER = "SPDX-License-Identifier: Apache-2.0"

# Files that carry no header: the licence itself, an empty marker that ament wants empty, and what
# is no text or has no comments.
NO_HEADER_NAMES = {"LICENSE", ".gitignore", "COLCON_IGNORE", "py.typed"}
NO_HEADER_SUFFIXES = {
    ".onnx",
    ".safetensors",
    ".png",
    ".jpg",
    ".dcm",
    ".json",
    ".jsonl",
    ".mp4",
    ".npz",
}
IGNORED_FOLDERS = {
    ".git", ".venv", "build", "install", "log", "out", "runs", "resource",
    "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis",
}  # fmt: skip

# From the ground up: a module may import from its own part and from the parts in the rows above
# its own here, never from a neighbour in its row.
LAYERS = [
    {"errors"},
    {"config"},
    {"provenance", "workers"},
    {"frames", "models"},
    {"perception"},
    {"simulation"},
    {"networks", "emd", "corpora"},
    {"evaluation"},
    {"federation", "finetuning", "export"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
# The only parts of fedefm_core that the ROS glue may use: no training code on a robot.
OPEN_TO_ROS = {"perception", "simulation", "frames", "provenance", "config", "errors"}
# These work on a machine without torch, each with all its modules but the one that is about torch.
TORCH_FREE = ["frames", "simulation", "perception", "cli", "evaluation.metrics"]
ABOUT_TORCH = "fedefm_core.perception.runtimes.torch"


def source_files() -> list[Path]:
    """Return all files of the source tree, build results left out."""
    return sorted(
        path
        for path in REPOSITORY.rglob("*")
        if path.is_file()
        and not IGNORED_FOLDERS.intersection(path.relative_to(REPOSITORY).parts)
        and not any(part.endswith(".egg-info") for part in path.parts)
    )


def python_files(package: str) -> list[Path]:
    """Return the Python files below a package of the repository."""
    return sorted((REPOSITORY / package).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the absolute names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} has a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """Return the part of fedefm_core that a module belongs to; None for any other package."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "fedefm_core" else None


def layer_of(part: str) -> int:
    """Return the row of LAYERS that holds a part."""
    rows = [row for row, parts in enumerate(LAYERS) if part in parts]
    assert rows, f"fedefm_core.{part} has no place in LAYERS of {Path(__file__).name}: give it one"
    return rows[0]


def without_header(paths: list[Path]) -> list[str]:
    """Return the files that must carry the licence header in their first lines and do not."""
    missing = []
    for path in paths:
        if path.name in NO_HEADER_NAMES or path.suffix in NO_HEADER_SUFFIXES:
            continue
        first_lines = path.read_bytes().splitlines()[:3]
        if not any(HEADER.encode() in line for line in first_lines):
            missing.append(str(path.relative_to(REPOSITORY)))
    return missing


def run_python(code: str) -> str:
    """Run code in a fresh interpreter at the root of the repository; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_file_names_its_licence() -> None:
    files = source_files()
    assert REPOSITORY / "Makefile" in files
    assert without_header(files) == []


def test_a_file_without_header_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.REPOSITORY", tmp_path)
    bare, headed = tmp_path / "bare.yaml", tmp_path / "headed.yaml"
    bare.write_text("a: 1\n")
    headed.write_text(f"# {HEADER}\na: 1\n")
    assert without_header([bare, headed]) == ["bare.yaml"]


def test_the_licence_is_whole() -> None:
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_imports_point_downwards() -> None:
    wrong = []
    for path in python_files("fedefm_core"):
        own = path.relative_to(REPOSITORY / "fedefm_core").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imported_modules(path):
            part = part_of(module)
            if part not in (None, "", own) and layer_of(part) >= layer_of(own):
                wrong.append(f"{path.relative_to(REPOSITORY)} imports {module}")
    assert wrong == []


def test_the_core_knows_nothing_of_ros() -> None:
    ros = {"rclpy", "fedefm_ros", "launch", "launch_ros", "ament_index_python", "cv_bridge"}
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in python_files("fedefm_core")
        for module in imported_modules(path)
        if module.partition(".")[0] in ros or module.partition(".")[0].endswith("_msgs")
    ]
    assert wrong == []


def test_the_ros_glue_uses_no_training_code() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in python_files("fedefm_ros")
        for module in imported_modules(path)
        if module.partition(".")[0] in {"torch", "monai"}
        or part_of(module) not in {None, *OPEN_TO_ROS}
    ]
    assert wrong == []


@pytest.mark.parametrize("part", TORCH_FREE)
def test_importing_needs_no_torch(part: str) -> None:
    code = f"""
import importlib, pkgutil, sys
top = importlib.import_module("fedefm_core.{part}")
for found in pkgutil.walk_packages(getattr(top, "__path__", []), top.__name__ + "."):
    if found.name != "{ABOUT_TORCH}":
        importlib.import_module(found.name)
print("torch" in sys.modules)
"""
    assert run_python(code).strip() == "False"


def test_the_ros_glue_needs_no_torch() -> None:
    pytest.importorskip("rclpy", reason="needs rclpy")
    code = """
import importlib, pkgutil, sys, fedefm_ros
for found in pkgutil.walk_packages(fedefm_ros.__path__, "fedefm_ros."):
    importlib.import_module(found.name)
print("torch" in sys.modules)
"""
    assert run_python(code).strip() == "False"


def test_help_loads_nothing_heavy() -> None:
    code = """
import contextlib, io, json, sys
from fedefm_core.cli import main
sys.argv = ["fedefm_core", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main()
print(json.dumps([out.getvalue(), sorted(name.partition(".")[0] for name in sys.modules)]))
"""
    text, modules = json.loads(run_python(code))
    assert "Usage" in text
    heavy = {"torch", "monai", "cv2", "scipy", "matplotlib", "openvino", "onnx", "onnxruntime"}
    heavy |= {"pydicom", "nibabel", "rosbags", "imagecodecs", "rclpy"}
    assert heavy.intersection(modules) == set()


def test_help_costs_little_more_than_its_libraries() -> None:
    libraries = cpu_seconds("import typer, rich, pydantic, yaml")
    show_help = cpu_seconds(
        "import sys; sys.argv = ['fedefm_core', '--help']; import fedefm_core.cli as c; c.main()"
    )
    assert show_help < 3 * libraries


def cpu_seconds(code: str) -> float:
    """Return the least CPU time of three runs of code, so that a busy machine does not matter."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_python(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)
