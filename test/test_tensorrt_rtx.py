# SPDX-License-Identifier: Apache-2.0
"""Every architecture parses and builds with TensorRT-RTX itself, which needs no GPU for that.

'make test-slow' installs its wheels. Small networks of each architecture, all of whose operators
are those of the full one; the engine runs, and is compared, only where a GPU is that can.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="exports networks, which needs the extra 'train'")
pytest.importorskip("nncf", reason="quantises networks, which needs the extra 'train'")

from segmentation_networks import NETWORKS, build

from fedefm_core.errors import EngineError, RuntimeUnavailableError
from fedefm_core.export.half import to_half
from fedefm_core.export.onnx import save_model, to_onnx
from fedefm_core.export.quantisation import quantise, signed_activations
from fedefm_core.perception import (
    ModelMetadata,
    open_runtime,
    read_metadata,
    shipped_models,
)
from fedefm_core.perception.runtimes.tensorrt import cache, open_plan
from fedefm_core.perception.runtimes.tensorrt.build_process import build_engine
from fedefm_core.perception.runtimes.tensorrt.builder import (
    BuildSettings,
    build_plan,
    check_quantisation,
)
from fedefm_core.perception.runtimes.tensorrt.machine import (
    TENSORRT_RTX,
    Machine,
    probe,
    probe_builder,
)

pytestmark = pytest.mark.slow

SIZE = (64, 64)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@pytest.fixture(scope="module")
def trt() -> Any:
    """TensorRT-RTX itself."""
    for name in TENSORRT_RTX.modules:
        if importlib.util.find_spec(name):
            return importlib.import_module(name)
    pytest.skip("the wheels of TensorRT-RTX are not installed (extra 'tensorrt-build')")


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest) -> tuple[str, onnx.ModelProto]:
    """An architecture and its graph in float."""
    return request.param, to_onnx(build(request.param), SIZE)


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, SIZE).astype(np.uint8) for _ in range(count)]


def in_precision(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A copy of a graph in another precision."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    if precision == "int8":
        return signed_activations(quantise(copy, images(2)))
    return copy if precision == "fp32" else to_half(copy, precision)


def saved(model: onnx.ModelProto, architecture: str, precision: str, folder: Path) -> Path:
    path = folder / f"{architecture}-{precision}.onnx"
    save_model(model, ModelMetadata(path.stem, architecture, precision, SIZE, ""), path)
    return path


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_architecture_builds(
    trt: Any, exported: tuple[str, onnx.ModelProto], precision: str, tmp_path: Path
) -> None:
    architecture, float_model = exported
    path = saved(in_precision(float_model, precision), architecture, precision, tmp_path)
    check_quantisation(path)
    told: list[float] = []

    def tell(progress: Any) -> bool:
        told.append(progress.fraction)
        return True

    settings = BuildSettings(optimisation_level=0)
    plan, _ = build_plan(trt, path.read_bytes(), settings, b"", tell, TENSORRT_RTX.name)
    assert len(plan) > 10_000
    assert told == sorted(told)
    assert told[-1] > 0.5
    _run_and_compare(plan, path)


def _run_and_compare(plan: bytes, path: Path) -> None:
    """Where a GPU is, the engine says what OpenVINO says of the same file."""
    try:
        machine = probe()
    except RuntimeUnavailableError:
        return
    if machine.flavour != TENSORRT_RTX.name:
        return
    runtime = open_plan(plan, read_metadata(path), machine)
    reference = open_runtime(path, "openvino")
    for image in images(3):
        found, expected = runtime.infer(image), reference.infer(image)
        assert (found.label_map != expected.label_map).mean() < 0.02
        np.testing.assert_allclose(found.tip_heatmap, expected.tip_heatmap, atol=0.02)


def test_execution_was_tried(trt: Any) -> None:
    """Says in the report whether engines were run, or only built."""
    try:
        probe()
    except RuntimeUnavailableError as error:
        pytest.skip(f"engines were built and not run: {error}")


def is_taken(path: Path) -> bool:
    """Whether the builder takes the quantisation of a file."""
    try:
        check_quantisation(path)
    except EngineError:
        return False
    return True


def test_shipped_models_build_as_they_are_or_with_int8_activations(trt: Any) -> None:
    for path in shipped_models().values():
        model = onnx.load(path)
        if not is_taken(path):
            model = signed_activations(model)
        settings = BuildSettings(optimisation_level=0)
        content = model.SerializeToString()
        assert build_plan(trt, content, settings, flavour=TENSORRT_RTX.name)[0]


def test_a_build_can_be_interrupted(trt: Any) -> None:
    content = to_onnx(build("wirenet"), SIZE).SerializeToString()
    with pytest.raises(EngineError, match="interrupted"):
        build_plan(
            trt,
            content,
            BuildSettings(),
            tell=lambda progress: progress.fraction < 0.1,
            flavour=TENSORRT_RTX.name,
        )


def test_a_broken_file_is_told(trt: Any) -> None:
    with pytest.raises(EngineError, match="cannot read the model"):
        build_plan(trt, b"no onnx", BuildSettings())


def test_from_file_to_cache_in_a_process(trt: Any, tmp_path: Path) -> None:
    machine: Machine = probe_builder()
    path = saved(to_onnx(build("wirenet"), SIZE), "wirenet", "fp32", tmp_path)
    entry = build_engine(path, tmp_path / "engines", machine, BuildSettings())
    assert entry.key.flavour == machine.flavour
    assert len(cache.load(tmp_path / "engines", entry.key)) == entry.plan_bytes
