# SPDX-License-Identifier: Apache-2.0
"""Bench: every stage of every frame is counted; no test here depends on how fast anything is."""

from __future__ import annotations

import numpy as np
import pytest
from cli_runner import run_cli

from fedefm_core.export.bench import quantiles, table, time_frames, warm_up
from fedefm_core.frames import Frame
from fedefm_core.perception import ModelMetadata, NetworkOutput, Segmenter


class Blank:
    """A runtime that sees nothing, and counts how often it was asked."""

    name = "blank"
    metadata = ModelMetadata("blank", "none", "fp32", (32, 32), "")

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, image):
        self.calls += 1
        empty = np.zeros((32, 32), np.uint8)
        return NetworkOutput(empty, empty, np.zeros((2, 8, 8), np.float32))


@pytest.fixture
def frames() -> list[Frame]:
    return [Frame(np.full((32, 32), i, np.uint8), stamp_ns=i * 10**8) for i in range(3)]


def test_each_frame_gives_one_value_a_stage(frames):
    timings = time_frames(Segmenter(Blank()), frames)
    assert set(timings) == {"preprocess", "inference", "instruments", "tracking", "total", "wall"}
    assert {len(values) for values in timings.values()} == {3}
    assert all(
        wall >= total for wall, total in zip(timings["wall"], timings["total"], strict=True)
    )


@pytest.mark.parametrize("count", [0, 2, 7])
def test_warm_up_goes_round_when_frames_run_out(frames, count):
    runtime = Blank()
    warm_up(Segmenter(runtime), frames, count)
    assert runtime.calls == count


def test_quantiles_of_known_values():
    found = quantiles(list(range(101)))
    assert found == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def test_table_has_a_row_a_stage():
    rows = table({"total": {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.125}})
    assert rows == [
        ["stage (ms)", "p50", "p95", "p99", "max"],
        ["total", "1.00", "2.00", "3.00", "4.12"],
    ]


def test_a_report_that_cannot_be_written_is_told_before_anything_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr("fedefm_core.export.bench.bench", None)
    for path in (tmp_path, "/proc/self/fedefm/bench.json"):
        result = run_cli("bench", "--json", path)
        assert (result.code, result.out) == (1, ""), result
        assert "The report" in result.err or "Cannot write the report" in result.err
