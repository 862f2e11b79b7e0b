# SPDX-License-Identifier: Apache-2.0
"""Runtimes: agreement, choice, and files that they must refuse."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from model_fixture import write_threshold_model
from onnx import TensorProto, helper, numpy_helper

from fedefm_core.errors import ConfigError, ModelFileError, RuntimeUnavailableError
from fedefm_core.perception import open_runtime, read_metadata, resolve_model, shipped_models
from fedefm_core.perception import runtimes as runtimes_package
from fedefm_core.perception.metadata import attach_metadata, weights_sha256

SIZE = (128, 128)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_threshold_model(tmp_path_factory.mktemp("model") / "threshold.onnx", SIZE)


@pytest.fixture(scope="module")
def wirenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="exports a network, which needs torch")
    from fedefm_core.export.onnx import export_onnx
    from fedefm_core.networks.wirenet import Wirenet, WirenetSettings

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("wirenet") / "wirenet.onnx"
    small = WirenetSettings(channels=(8, 16, 16, 16), blocks=(1, 1, 1, 1))
    export_onnx(Wirenet(small), path, name="random", input_size=SIZE)
    return path


def image() -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    ramp = 100 + 0.5 * x + 0.3 * y
    noise = np.random.default_rng(0).normal(0, 12, SIZE)
    return np.clip(ramp + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_runtimes_agree_on_a_network(wirenet: Path, name: str) -> None:
    expected = open_runtime(wirenet, "onnxruntime").infer(image())
    got = open_runtime(wirenet, name).infer(image())
    assert (got.label_map != expected.label_map).mean() < 1e-3
    difference = np.abs(got.probability.astype(int) - expected.probability.astype(int))
    assert difference.max() <= 1
    np.testing.assert_allclose(got.tip_heatmap, expected.tip_heatmap, atol=1e-4)
    assert got.label_map.dtype == got.probability.dtype == np.uint8
    assert got.tip_heatmap.shape == (2, SIZE[0] // 4, SIZE[1] // 4)


@pytest.mark.parametrize(
    ("precision", "name", "tolerance"),
    [
        ("fp16", "torch", 0.01),
        ("fp16", "openvino", 0.01),
        ("fp16", "onnxruntime", 0.01),
        ("bf16", "torch", 0.03),
        ("bf16", "openvino", 0.03),
    ],
)
def test_runtimes_agree_on_half_precision(
    wirenet: Path, tmp_path: Path, precision: str, name: str, tolerance: float
) -> None:
    from fedefm_core.export.half import to_half
    from fedefm_core.export.onnx import save_model

    path = tmp_path / "half.onnx"
    half = replace(read_metadata(wirenet), precision=precision)
    save_model(to_half(onnx.load(wirenet), precision), half, path)
    expected = open_runtime(wirenet, "onnxruntime").infer(image())
    got = open_runtime(path, name).infer(image())
    assert (got.label_map != expected.label_map).mean() < tolerance
    assert got.tip_heatmap.dtype == np.float32
    np.testing.assert_allclose(got.tip_heatmap, expected.tip_heatmap, atol=tolerance)


def test_torch_works_out_once_what_depends_on_no_image(wirenet: Path) -> None:
    from fedefm_core.perception.runtimes.torch import TorchRuntime

    graph = onnx.load(wirenet).graph
    nodes = [
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.float32(1))),
        helper.make_node("Add", ["one", "one"], ["two"]),
    ]
    graph.node.extend(nodes)
    runtime = TorchRuntime(graph, read_metadata(wirenet))
    assert len(runtime._nodes) == len(graph.node) - 2
    assert runtime._weights["two"] == 2


def test_torch_on_a_gpu_gives_what_it_gives_on_the_cpu(wirenet: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that torch can use")
    from fedefm_core.perception.runtimes.torch import TorchRuntime

    graph, metadata = onnx.load(wirenet).graph, read_metadata(wirenet)
    expected = TorchRuntime(graph, metadata, "cpu").infer(image())
    on_gpu = TorchRuntime(graph, metadata, "cuda")
    on_gpu.infer(np.zeros(SIZE, np.uint8))
    got = on_gpu.infer(image())
    assert (got.label_map != expected.label_map).mean() < 1e-3
    np.testing.assert_allclose(got.tip_heatmap, expected.tip_heatmap, atol=1e-3)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_results_do_not_depend_on_the_call_before(model: Path, name: str) -> None:
    runtime = open_runtime(model, name, threads=1)
    first = runtime.infer(image()).label_map.copy()
    runtime.infer(np.zeros(SIZE, np.uint8))
    read_only = image()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(runtime.infer(read_only).label_map, first)


def test_auto_takes_the_first_that_works_and_says_why(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(runtimes_package, "ORDER", ("no_such_runtime", "onnxruntime", "torch"))
    runtime = open_runtime(model)
    assert runtime.name == "onnxruntime"
    assert list(runtime.skipped_runtimes) == ["no_such_runtime"]
    assert "no_such_runtime" in runtime.skipped_runtimes["no_such_runtime"]
    assert "onnxruntime" in caplog.text


def test_no_runtime_at_all_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes_package, "ORDER", ("no_such_runtime",))
    with pytest.raises(RuntimeUnavailableError, match="No inference runtime can run"):
        open_runtime(model)


def test_wrong_arguments_are_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of auto"):
        open_runtime(model, "tflite")
    with pytest.raises(ConfigError, match="threads"):
        open_runtime(model, threads=-1)


def test_torch_names_the_operators_that_it_does_not_know(model: Path, tmp_path: Path) -> None:
    changed = onnx.load(model)
    changed.graph.node.append(helper.make_node("Erf", ["image"], ["unused"]))
    path = saved(changed, model, tmp_path)
    with pytest.raises(RuntimeUnavailableError, match="Erf"):
        open_runtime(path, "torch")


def saved(changed: onnx.ModelProto, original: Path, folder: Path, **metadata: object) -> Path:
    """Write a changed model whose metadata is right but for what is given."""
    right = replace(read_metadata(original), weights_sha256=weights_sha256(changed))
    attach_metadata(changed, replace(right, **metadata))
    path = folder / "changed.onnx"
    onnx.save(changed, path)
    return path


def test_a_missing_file_names_the_shipped_models() -> None:
    with pytest.raises(ModelFileError, match="neither a file nor a shipped model"):
        resolve_model("no-such-model")


def test_shipped_models_resolve_by_name_and_by_default() -> None:
    for name, path in shipped_models().items():
        assert resolve_model(name) == path
        assert read_metadata(path).format_version == 1


def test_a_path_resolves_to_itself(model: Path) -> None:
    assert resolve_model(str(model)) == model


def test_a_file_without_metadata_is_refused(model: Path, tmp_path: Path) -> None:
    bare = onnx.load(model)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(ModelFileError, match="carries no 'fedefm' metadata"):
        open_runtime(tmp_path / "bare.onnx")


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelFileError):
        open_runtime(tmp_path / "text.onnx")


def test_a_signal_after_one_model_took_the_place_of_another(model: Path) -> None:
    """OpenVINO lends the thread a stack for signals; in a process of its own, for it may crash."""
    code = """
import signal, sys
from fedefm_core.perception import open_runtime
first = open_runtime(sys.argv[1], "openvino")
second = open_runtime(sys.argv[1], "openvino")
del first
del second
signal.signal(signal.SIGINT, lambda *_: print("noted"))
signal.raise_signal(signal.SIGINT)
"""
    command = [sys.executable, "-c", code, str(model)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "noted\n"), ended.stderr


def test_changed_weights_are_refused(model: Path, tmp_path: Path) -> None:
    changed = onnx.load(model)
    changed.graph.initializer[0].name += "x"
    onnx.save(changed, tmp_path / "changed.onnx")
    with pytest.raises(ModelFileError, match="changed after export"):
        open_runtime(tmp_path / "changed.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"input_size": (64, 64)}, "input 'image' .* must be uint8 of shape"),
        ({"classes": ("background", "wire")}, "knows the classes"),
        ({"format_version": 99}, "format version 99"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(
    model: Path, tmp_path: Path, metadata: dict, message: str
) -> None:
    path = saved(onnx.load(model), model, tmp_path, **metadata)
    with pytest.raises(ModelFileError, match=message):
        open_runtime(path)


def test_a_graph_with_other_outputs_is_refused(model: Path, tmp_path: Path) -> None:
    renamed = onnx.load(model)
    renamed.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    with pytest.raises(ModelFileError, match="must have the outputs"):
        open_runtime(saved(renamed, model, tmp_path))
    retyped = onnx.load(model)
    retyped.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ModelFileError, match="must be uint8"):
        open_runtime(saved(retyped, model, tmp_path))


def test_openvino_reports_to_nobody():
    """Its telemetry forks a process at import, and may end it with a signal."""
    code = (
        "import sys; from fedefm_core.perception import open_runtime; open_runtime(None, "
        "'openvino'); print([name for name in sys.modules if 'openvino_telemetry.' in name])"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output == "[]\n"
