# SPDX-License-Identifier: Apache-2.0
"""The demo: its figures in closed form, its pictures, and the whole of it over real DDS."""

from __future__ import annotations

import doctest
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2's rclpy")

from model_fixture import write_threshold_model

from fedefm_ros import children, demo_pictures, demo_rate, demo_report, playback
from fedefm_ros.children import ChildError, check_alive, start_node, stop_node
from fedefm_ros.demo_rate import STEPS_HZ, answered_hz, rate_held
from fedefm_ros.demo_report import FrameRecord, count_frames, percentiles, summarise
from fedefm_ros.recorder import sparse_mask
from fedefm_ros.transport import LARGE_DATA, claim_domain, large_data_environment

TIMEOUT_S = 400.0
TRUTH = {"guidewire": [(10.0, 10.0)], "catheter": []}

# --- figures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [demo_rate, demo_report, playback])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@given(st.sets(st.integers(0, 50), min_size=1), st.sets(st.integers(0, 50)))
def test_every_sent_frame_is_received_or_lost(sent, received):
    counts = count_frames(sorted(sent), received)
    assert counts["sent"] == len(sent) == counts["received"] + counts["lost"]
    assert counts["received"] == len(sent & received)


def test_answers_to_the_rehearsal_are_not_counted_and_strange_ones_are():
    assert count_frames([10, 20], [5, 10, 15, 20])["unknown"] == 1


def test_percentiles_of_a_known_series():
    summary = percentiles(float(n) for n in range(101))
    assert summary == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0, "n": 101}
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None, "max": None, "n": 0}


def record(stamp: int, tip: tuple[float, float] | None, truth: dict | None) -> FrameRecord:
    tips = {} if tip is None else {"guidewire": tip}
    return FrameRecord(stamp, 5.0, dict.fromkeys(tips, 4.0), tips, truth, "TRACKING")


def test_tips_are_counted_by_what_the_truth_says():
    records = [
        record(1, (13.0, 14.0), TRUTH),  # found, 5 px off
        record(2, None, TRUTH),  # missed
        record(3, (1.0, 1.0), {"guidewire": [], "catheter": []}),  # false
        record(4, None, {"guidewire": [], "catheter": []}),  # rightly absent
        FrameRecord(5, true_tips_px=TRUTH),  # lost: says nothing about tips
    ]
    summary = summarise(records, [1, 2, 3, 4])
    assert summary["frames"] == {"sent": 5, "received": 4, "lost": 1, "unknown": 0}
    counts = {"valid": 2, "absent": 2, "found": 1, "false": 1, "missed": 1}
    assert summary["tips"]["guidewire"] == counts
    assert summary["tip_error_px"]["guidewire"]["p50"] == 5.0
    assert summary["tip_error_px"]["guidewire"]["n"] == 1
    assert summary["latency_ms"]["n"] == 2
    assert summary["latency_ms"]["max"] == 4.0


def test_error_is_to_the_nearest_true_tip():
    truth = {"guidewire": [(100.0, 0.0), (3.0, 4.0)], "catheter": []}
    assert record(1, (0.0, 0.0), truth).error_px("guidewire") == 5.0


def test_without_truth_there_is_a_reason_instead_of_an_error():
    summary = summarise([record(1, (1.0, 1.0), None)], [1])
    assert summary["tip_error_px"] is None
    assert summary["tip_error_reason"]
    assert summary["tips"]["guidewire"] == {"valid": 1, "absent": 0}


def test_the_table_says_the_same_as_the_report():
    report = summarise([record(1, (13.0, 14.0), TRUTH), record(2, None, TRUTH)], [1, 2])
    assert demo_report.summary_rows(report) == [
        ("frames", "sent 2, received 2, lost 0"),
        ("stamp to tip", "p50 4.0, p95 4.0, p99 4.0, max 4.0 ms"),
        ("catheter tip", "valid 0, absent 2, found 0, false 0, missed 0"),
        ("catheter tip error", "none"),
        ("guidewire tip", "valid 1, absent 1, found 1, false 0, missed 1"),
        ("guidewire tip error", "p50 5.0, p95 5.0, p99 5.0, max 5.0 px"),
    ]


def test_latency_is_that_of_the_later_tip_and_of_each():
    both = FrameRecord(1, 9.0, {"guidewire": 4.0, "catheter": 6.0})
    one = FrameRecord(2, 9.0, {"catheter": 2.0})
    summary = summarise([both, one, FrameRecord(3, 9.0)], [1, 2, 3])
    assert (summary["latency_ms"]["n"], summary["latency_ms"]["max"]) == (2, 6.0)
    by_topic = summary["latency_by_topic_ms"]
    assert by_topic["guidewire/tip_pixel"]["max"] == 4.0
    assert by_topic["catheter/tip_pixel"]["n"] == 2
    assert by_topic["mask"]["n"] == 3


# --- the rate ---------------------------------------------------------------------------------


def stamps(rate_hz: float, numbers: Iterable[int], slower: float = 1.0) -> list[int]:
    """Stamps in nanoseconds of the frames with these numbers, at a rate."""
    return [round(number * slower / rate_hz * 1e9) for number in numbers]


@given(st.sampled_from([5.0, 15.0, 30.0, 60.0]), st.integers(10, 200), st.floats(1.0, 1.4))
def test_a_rate_that_is_answered_is_kept_however_slow_the_sender(rate, count, slower):
    assert rate_held(stamps(rate, range(count), slower), rate) == rate


def test_two_frames_in_a_hundred_may_be_missed_and_three_not():
    numbers = set(range(101))
    assert rate_held(stamps(30.0, numbers - {20, 60}), 30.0) == 30.0
    assert rate_held(stamps(30.0, numbers - {20, 60, 61}), 30.0) < 30.0


@given(st.integers(2, 40), st.integers(10, 60))
def test_a_rate_that_is_not_held_is_lowered_with_room_to_spare(every, count):
    answered = stamps(30.0, range(0, every * count, every))
    rate = rate_held(answered, 30.0)
    assert rate in STEPS_HZ
    assert rate <= 0.7 * answered_hz(answered) + 1e-6 or rate == min(STEPS_HZ)


def test_no_rate_is_raised():
    assert rate_held(stamps(10.0, range(0, 40, 2)), 10.0) == 3.0
    assert rate_held(stamps(1.0, range(0, 40, 2)), 1.0) == 1.0


def test_a_sparse_mask_is_the_same_label_map_again():
    label_map = np.random.default_rng(0).integers(0, 3, (7, 9)).astype(np.uint8)
    assert (sparse_mask(label_map).dense() == label_map).all()


# --- pictures ---------------------------------------------------------------------------------


def test_pictures_of_another_size_fit_the_video():
    picture = np.full((100, 50, 3), 200, np.uint8)
    fitted = demo_pictures.fitted(picture, (64, 64))
    assert fitted.shape == (64, 64, 3)
    assert fitted[10, 10].tolist() == [200] * 3
    assert fitted[10, 40].tolist() == [0] * 3
    assert demo_pictures.fitted(picture, (50, 100)) is picture


def test_the_contact_sheet_shows_answered_frames_where_there_are_any():
    assert demo_pictures._spread([4, 9], 300) == {4, 9}
    assert demo_pictures._spread([], 3) == {0, 1, 2}
    spread = demo_pictures._spread(range(5, 205), 300)
    assert (len(spread), min(spread), max(spread)) == (12, 5, 204)


def test_captions_say_what_is_known_and_no_more():
    lost = FrameRecord(1)
    assert demo_pictures.caption(0, lost) == "frame 1   no answer"
    text = demo_pictures.caption(1, record(1, (13.0, 14.0), TRUTH))
    assert text == "frame 2   TRACKING   guidewire tip 4.0 ms   guidewire error 5.0 px"


# --- processes --------------------------------------------------------------------------------


def test_claimed_domains_differ_until_given_back():
    domain, claim = claim_domain()
    other, other_claim = claim_domain()
    with claim, other_claim:
        assert domain != other
        environment = large_data_environment(domain, {"ROS_LOCALHOST_ONLY": "1", "HOME": "/h"})
    assert environment == {
        "HOME": "/h",
        "ROS_DOMAIN_ID": str(domain),
        "FASTDDS_BUILTIN_TRANSPORTS": LARGE_DATA,
    }


def test_a_node_that_died_is_told_with_the_end_of_its_log(tmp_path):
    child = start_node("playback_node", {"source": "/nowhere/at/all"}, tmp_path)
    child.process.wait(TIMEOUT_S)
    with pytest.raises(ChildError, match="playback_node ended with code 1") as error:
        check_alive([child])
    assert "/nowhere/at/all" in str(error.value)
    assert stop_node(child) == 1


def test_a_node_that_does_not_listen_is_ended_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "STOP_TIMEOUT_S", 0.05)
    code = (
        "import signal, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"deaf\n"
    log = tmp_path / "deaf.log"
    assert stop_node(children.Child("deaf", process, log, ends_by_itself=False)) == -9
    process.stdout.close()


def test_no_torch_on_the_way_from_frame_to_tip():
    names = "demo, playback_node, segmentation_node"
    code = f"import sys; from fedefm_ros import {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=TIMEOUT_S).returncode == 0


# --- the whole --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_threshold_model(tmp_path_factory.mktemp("model") / "threshold.onnx")


def start_demo(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedefm_ros.demo", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that were started with a parameter file in folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # ended meanwhile
            continue
        if str(folder) in line and "--params-file" in line:
            found.append(line)
    return found


@pytest.mark.ros
def test_a_short_demo_of_the_simulator(tmp_path, model, ros_domain_id):
    out = tmp_path / "out"
    process = start_demo(
        *("--out", out, "--model", model, "--frames", 30, "--kind", "phantom", "--seed", 5),
        *("--domain", ros_domain_id),
    )
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    report = json.loads((out / "report.json").read_text())
    assert report["frames"]["sent"] == 30
    assert report["frames"]["received"] + report["frames"]["lost"] == 30
    assert report["frames"]["received"] > 0
    assert report["frames"]["unknown"] == 0
    assert set(report["latency_ms"]) == {"p50", "p95", "p99", "max", "n"}
    assert set(report["tip_error_px"]) == {"catheter", "guidewire"}
    assert report["node_ms"]["processing"]["n"] > 0
    assert report["model"]["name"] == "threshold"
    assert report["runtime"] in ("openvino", "onnxruntime")
    assert report["ros"]["transport"] == LARGE_DATA
    assert report["settings"]["seed"] == 5
    assert report["rate"]["source_hz"] == 30.0
    assert 0 < report["rate"]["played_hz"] <= 30.0
    assert report["rate"]["answered_hz"] > 0
    assert report["cpu_count"] >= 1
    check_pictures(out, frames=30)
    assert "sent 30, received" in output
    assert not left_behind(out)


def check_pictures(out: Path, frames: int) -> None:
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == frames
    assert math.isclose(video.get(cv2.CAP_PROP_FPS), 30.0, abs_tol=0.1)
    found, picture = video.read()
    assert found
    assert picture.shape == (512 + demo_pictures.CAPTION_HEIGHT, 512, 3)
    for name in ("contact_sheet.png", "tip_and_latency.png"):
        assert cv2.imread(str(out / name)).std() > 10  # not blank


@pytest.mark.ros
def test_an_interrupted_demo_leaves_nothing_running(tmp_path, model, ros_domain_id):
    process = start_demo(
        *("--out", tmp_path, "--model", model, "--frames", 100_000, "--rate", 5),
        *("--domain", ros_domain_id),
    )
    deadline = time.monotonic() + TIMEOUT_S
    while len(left_behind(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert not left_behind(tmp_path)


@pytest.mark.ros
def test_a_demo_without_an_answer_says_so_and_stops(tmp_path, model, ros_domain_id):
    process = start_demo(
        *("--out", tmp_path, "--model", model, "--timeout", 0.01, "--domain", ros_domain_id)
    )
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "Waited 0.01 s in vain for an answer to the first frame" in output
    assert not left_behind(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--source", "/nowhere/at/all.dcm"), "/nowhere/at/all.dcm"),
        (("--model", "/nowhere/at/all.onnx"), "There is no model '/nowhere/at/all.onnx'"),
        (("--frames", "0"), "must be 1 or more"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_starts(tmp_path, arguments, sentence):
    out = tmp_path / "out"
    process = start_demo("--out", out, *arguments)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0
    assert sentence in output
    assert "Traceback" not in output
    assert not out.exists()
