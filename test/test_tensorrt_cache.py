# SPDX-License-Identifier: Apache-2.0
"""The engine cache: only what we built for this very model and machine is ever loaded."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_runner import run_cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_fixture import write_threshold_model

from fedefm_core.errors import EngineError, OutputError
from fedefm_core.perception import read_metadata
from fedefm_core.perception.runtimes.tensorrt import cache
from fedefm_core.perception.runtimes.tensorrt.machine import Machine
from fedefm_core.provenance import file_sha256

PLAN = b"a plan of some length"
MACHINE = Machine("TensorRT", "tensorrt", "11.4.0", "NVIDIA H100", "9.0", "580.65.06")
KEY = cache.EngineKey(
    "ab" * 32, "fp16", (512, 512), "TensorRT", "11.4.0", "NVIDIA H100", "9.0", "580.65.06"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one engine."""
    place = tmp_path / "engines"
    cache.store(place, KEY, PLAN, "wirenet", 12.5, 3)
    return place


def plan_file(folder: Path) -> Path:
    return folder / (KEY.stem + cache.PLAN)


def record_file(folder: Path) -> Path:
    return folder / (KEY.stem + cache.RECORD)


def test_what_was_stored_comes_back(folder: Path) -> None:
    assert cache.load(folder, KEY) == PLAN
    entry = cache.read_entry(record_file(folder))
    assert (entry.key, entry.model, entry.plan_bytes) == (KEY, "wirenet", len(PLAN))
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        (plan_file(folder).name, record_file(folder).name)
    )
    assert cache.problem(folder, KEY.stem) == ""


def test_the_key_is_of_the_file_its_metadata_and_the_machine(tmp_path: Path) -> None:
    model = write_threshold_model(tmp_path / "model.onnx")
    key = cache.engine_key(model, read_metadata(model), MACHINE)
    assert key == cache.EngineKey(
        file_sha256(model), "fp32", (128, 128), "TensorRT", "11.4.0", "NVIDIA H100", "9.0",
        "580.65.06",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpu": "NVIDIA A100", "compute_capability": "8.0"}, "gpu NVIDIA H100, here NVIDIA A100"),
        ({"version": "10.7.0"}, r"version 11\.4\.0, here 10\.7\.0"),
        ({"flavour": "TensorRT-RTX"}, "flavour TensorRT, here TensorRT-RTX"),
        ({"driver": "570.1"}, r"driver 580\.65\.06, here 570\.1"),
        ({"precision": "int8"}, "precision fp16, here int8"),
    ],
)
def test_an_engine_for_something_else_is_named(
    folder: Path, change: dict[str, str], words: str
) -> None:
    with pytest.raises(EngineError, match=f"do not fit: .*{words}.*fedefm_core engine build"):
        cache.load(folder, replace(KEY, **change))


def test_no_engine_says_how_to_build_one(folder: Path) -> None:
    with pytest.raises(EngineError, match=r"no engine of this model .* fedefm_core engine build"):
        cache.load(folder, replace(KEY, model_sha256="cd" * 32))
    with pytest.raises(EngineError, match="no engine of this model"):
        cache.load(folder / "nowhere", KEY)


def truncate(folder: Path) -> None:
    plan_file(folder).write_bytes(PLAN[:5])


def change(folder: Path) -> None:
    plan_file(folder).write_bytes(PLAN[::-1])


def lose_record(folder: Path) -> None:
    record_file(folder).unlink()


def spoil_record(folder: Path) -> None:
    record_file(folder).write_text('{"key": {}}')


def open_to_all(folder: Path) -> None:
    plan_file(folder).chmod(0o666)


def swap_record(folder: Path) -> None:
    cache.store(folder, replace(KEY, gpu="NVIDIA A100"), PLAN, "wirenet", 1.0, 3)
    other = replace(KEY, gpu="NVIDIA A100").stem
    os.replace(folder / (other + cache.RECORD), record_file(folder))


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "truncated: 5 of 21 bytes"),
    (change, "not the plan that this program built"),
    (lose_record, "not built by this program"),
    (spoil_record, "not built by this program"),
    (open_to_all, "can be written by other users"),
    (swap_record, "belongs to engine-"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE)
def test_a_plan_that_is_not_ours_is_never_loaded(
    folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(folder)
    with pytest.raises(EngineError, match=f"{words}.*not loaded"):
        cache.load(folder, KEY)
    result = run_cli("engine", "verify", "--folder", folder)
    assert result.code == 1
    assert "Traceback" not in result.err


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40))
def test_no_other_content_passes_for_the_plan(folder: Path, content: bytes) -> None:
    plan_file(folder).write_bytes(content)
    if content == PLAN:
        assert cache.load(folder, KEY) == PLAN
    else:
        with pytest.raises(EngineError):
            cache.load(folder, KEY)


def test_a_folder_that_cannot_be_made_is_told_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Cannot write to the folder of engines .*\$FEDEFM_ENG"):
        cache.check_folder(tmp_path / "file" / "engines")


def test_a_folder_without_permission_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache.os, "open", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*every start would build anew"):
        cache.store(tmp_path, KEY, PLAN, "wirenet", 1.0, 3)


def test_a_full_disk_is_told_and_leaves_no_part(folder: Path, monkeypatch: Any) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        cache.store(folder, KEY, b"another plan", "wirenet", 1.0, 3)
    assert not list(folder.glob("*" + cache.PARTIAL))
    with pytest.raises(EngineError):  # its record is gone: half of a build is none
        cache.load(folder, KEY)


def test_clear_takes_only_what_is_ours(folder: Path) -> None:
    cache.write(cache.timings_file(folder, MACHINE), b"timed")
    (folder / "notes.txt").write_text("mine")
    (folder / "engine-notes.txt").write_text("mine too")
    result = run_cli("engine", "clear", "--folder", folder)
    assert result.code == 0
    assert sorted(p.name for p in folder.iterdir()) == ["engine-notes.txt", "notes.txt"]


def test_clear_by_name(folder: Path) -> None:
    other = replace(KEY, precision="int8")
    cache.store(folder, other, PLAN, "wirenet", 1.0, 3)
    assert run_cli("engine", "clear", "--folder", folder, "--name", KEY.stem).code == 0
    assert cache.stems(folder) == [other.stem]
    result = run_cli("engine", "clear", "--folder", folder, "--name", "engine-nope")
    assert result.code == 1
    assert "no engine engine-nope" in result.err


def test_list_says_what_each_is_for(folder: Path) -> None:
    spoil = replace(KEY, precision="int8")
    cache.store(folder, spoil, PLAN, "wirenet", 1.0, 3)
    (folder / (spoil.stem + cache.RECORD)).write_text("no json")
    result = run_cli("engine", "list", "--folder", folder)
    assert result.code == 0
    assert "wirenet, fp16, 512 x 512, for NVIDIA H100 (9.0), driver 580.65.06" in result.out
    assert f"{spoil.stem}: its record is missing or unreadable" in result.out
    assert "0 engines" in run_cli("engine", "list", "--folder", folder / "nowhere").out


def test_the_default_folder_can_be_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv(cache.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "fedefm_core" / "engines"
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "mine"))
    assert cache.default_folder() == tmp_path / "mine"
