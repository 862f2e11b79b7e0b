# SPDX-License-Identifier: Apache-2.0
"""Model card and metrics: what is stored belongs to this very model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="export needs torch")

from fedefm_core.cli import main
from fedefm_core.errors import ModelFileError
from fedefm_core.evaluation.evaluate import EvaluationSettings, score_frame, summarise
from fedefm_core.export.card import add_metrics, model_card, read_parity, read_report
from fedefm_core.export.onnx import save_model
from fedefm_core.perception import ModelMetadata, read_metadata


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    ports = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.UINT8, [1]) for n in "ab"]
    graph = onnx.helper.make_graph([node], "graph", ports[:1], ports[1:])
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[opset])
    metadata = ModelMetadata("tiny", "wirenet", "int8", (64, 64), "", data="A handful of images")
    save_model(model, metadata, tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


@pytest.fixture
def report(model_file: Path) -> dict[str, object]:
    mask = np.eye(32, dtype=np.uint8)
    settings = EvaluationSettings(bootstrap_resamples=10)
    groups = summarise([score_frame("one", mask, (), mask, None, settings)], settings)
    return {
        "model": {"weights_sha256": read_metadata(model_file).weights_sha256},
        "groups": groups,
    }


def test_metrics_go_into_the_file_and_change_nothing_else(model_file, report):
    before = read_metadata(model_file)
    add_metrics(model_file, report)
    after = read_metadata(model_file)
    assert after.metrics["all"]["regions"]["catheter"]["dice"]["mean"] == 1.0
    assert {**vars(after), "metrics": {}} == {**vars(before), "metrics": {}}


@pytest.mark.parametrize("change", [{"model": {"weights_sha256": "00"}}, {"model": None}])
def test_metrics_of_another_model_are_refused(model_file, report, change):
    with pytest.raises(ModelFileError, match="must be a report of 'fedefm_core evaluate' on"):
        add_metrics(model_file, report | change)


def test_report_without_metrics_is_refused(model_file, report):
    del report["groups"]
    with pytest.raises(ModelFileError, match="must be a report of"):
        add_metrics(model_file, report)


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_damaged_report(tmp_path, text):
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ModelFileError, match=r"report\.json"):
        read_report(path)


def test_card_says_what_is_and_what_is_not_known(model_file, report):
    bare = model_card(read_metadata(model_file), {})
    assert "Not measured." in bare
    assert "Parity" not in bare
    full = model_card(add_metrics(model_file, report), {})
    assert "Research use only. Not a medical device." in full
    assert "A handful of images" in full
    assert "| all | catheter | 1 | 1.000 " in full


def test_parity_report_of_another_model_is_left_out(model_file, tmp_path):
    metadata = read_metadata(model_file)
    path = tmp_path / "tiny.parity.json"
    assert read_parity(path, metadata) == {}
    path.write_text(json.dumps({"weights_sha256": "00", "parity": {"int8": {}}}))
    assert read_parity(path, metadata) == {}
    path.write_text(
        json.dumps({"weights_sha256": metadata.weights_sha256, "parity": {"int8": {}}})
    )
    assert read_parity(path, metadata) == {"int8": {}}


def test_verb_describe_stores_the_metrics_and_writes_the_card(model_file, report, monkeypatch):
    metrics, card = model_file.with_name("metrics.json"), model_file.with_suffix(".md")
    metrics.write_text(json.dumps(report))
    argv = ["fedefm_core", "describe", str(model_file), "--metrics", str(metrics)]
    monkeypatch.setattr("sys.argv", [*argv, "--card", str(card)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert read_metadata(model_file).metrics
    assert "\n# tiny\n" in card.read_text()
