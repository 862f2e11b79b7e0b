# SPDX-License-Identifier: Apache-2.0
"""Export: the graph keeps its contract and results; what drifted or does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runner import run_cli
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch", reason="export needs torch")
pytest.importorskip("onnxscript", reason="export needs onnxscript")

from fedefm_core.cli import main  # noqa: E402
from fedefm_core.errors import (  # noqa: E402
    ConfigError,
    FrameError,
    ModelFileError,
    OutputError,
    WeightsError,
)
from fedefm_core.export import model as exporting  # noqa: E402
from fedefm_core.export import onnx as to_file  # noqa: E402
from fedefm_core.export.parity import LIMITS  # noqa: E402
from fedefm_core.networks import save_weights  # noqa: E402
from fedefm_core.networks.segmentation import decide, normalise  # noqa: E402
from fedefm_core.networks.wirenet import Wirenet, WirenetSettings  # noqa: E402
from fedefm_core.perception import ModelMetadata, open_runtime, read_metadata  # noqa: E402
from fedefm_core.perception.contract import verify_graph  # noqa: E402

SIZE = (64, 96)
NETWORK = {"channels": [4, 8, 8, 8], "blocks": [1, 1, 1, 1]}
METADATA = ModelMetadata("tiny", "wirenet", "fp32", SIZE, weights_sha256="")


def tiny_network() -> Wirenet:
    torch.manual_seed(3)
    network = Wirenet(WirenetSettings(**NETWORK))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training: not the identity
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def images(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, size, dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def network() -> Wirenet:
    return tiny_network()


@pytest.fixture(scope="module")
def graph(network: Wirenet) -> onnx.ModelProto:
    return to_file.to_onnx(network, SIZE)


@pytest.fixture(scope="module")
def model_file(graph: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    to_file.save_model(graph, METADATA, path)
    return path


def test_file_keeps_the_graph_contract(model_file):
    metadata = read_metadata(model_file)
    verify_graph(model_file, metadata)
    assert (metadata.name, metadata.precision, metadata.input_size) == ("tiny", "fp32", SIZE)
    assert metadata.versions["torch"] == torch.__version__


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_file_computes_what_the_network_computes(network, model_file, runtime):
    infer = open_runtime(model_file, runtime).infer
    for image in images(4):
        with torch.no_grad():
            logits, tips = network(normalise(torch.from_numpy(image)[None, None]))
        found = infer(image)
        none, catheter, guidewire = torch.softmax(logits.double(), 1)[0].numpy()
        label = np.where(none >= 0.5, 0, 1 + (guidewire > catheter))
        clear = np.minimum(np.abs(none - 0.5), np.abs(guidewire - catheter)) > 1e-5
        np.testing.assert_array_equal(found.label_map[clear], label[clear])
        probability = 255 * np.maximum(none, 1 - none)
        np.testing.assert_allclose(found.probability, probability, rtol=0, atol=0.51)
        np.testing.assert_allclose(found.tip_heatmap, tips[0].sigmoid().numpy(), atol=1e-5)


def test_blank_image_gives_a_finite_result(model_file):
    found = open_runtime(model_file, "openvino").infer(np.full(SIZE, 77, np.uint8))
    assert np.isfinite(found.tip_heatmap).all()
    assert found.label_map.max() <= 2


def test_initialisers_keep_the_parameters_names(network, model_file):
    names = {tensor.name for tensor in onnx.load(model_file).graph.initializer}
    weights = {f"network.{name}" for name, p in network.named_parameters() if p.ndim == 4}
    assert weights <= names


def test_file_tells_nothing_of_the_machine_that_wrote_it(model_file):
    content = model_file.read_bytes()
    assert str(Path(__file__).parents[1]).encode() not in content
    assert b"stack_trace" not in content


def test_same_network_gives_the_same_file(network, model_file, tmp_path):
    again = tmp_path / "again.onnx"
    to_file.export_onnx(network, again, "tiny", input_size=SIZE)
    assert read_metadata(again) == read_metadata(model_file)


@given(hnp.arrays(np.float32, (1, 6, 2, 2), elements=st.floats(-30, 30, width=32)))
def test_first_whether_an_instrument_then_which(cells):
    label, probability = decide(*torch.from_numpy(cells).chunk(3, dim=1))
    logits = cells.reshape(1, 3, 2, 2, 2).astype(np.float64)
    exact = np.exp(logits - logits.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    instrument = exact[:, 1] + exact[:, 2]
    clear = np.abs(instrument - exact[:, 0]) > 1e-6
    which = 1 + (logits[:, 2] > logits[:, 1])
    expected = np.where(instrument > exact[:, 0], which, 0)
    np.testing.assert_array_equal(label.numpy()[clear], expected[clear])
    np.testing.assert_allclose(probability.numpy(), np.maximum(instrument, exact[:, 0]), rtol=1e-5)


def test_what_could_be_either_instrument_is_not_taken_for_none():
    cells = torch.tensor([0.5, 0.3, 0.2]).log().reshape(1, 3, 1, 1) + torch.tensor(0.0)
    cells[0, 0] -= 0.1
    label, probability = decide(*cells.chunk(3, dim=1))
    assert label.item() == 1
    assert probability.item() == pytest.approx(0.5 / (0.5 + 0.5 * np.exp(-0.1)), rel=1e-5)


def test_other_networks_are_refused():
    with pytest.raises(ModelFileError, match=r"Only segmentation networks .* \(got Linear\)"):
        to_file.to_onnx(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("size", [(0, 64), (64, 70), (-32, 32)])
def test_sizes_that_the_network_cannot_take_are_refused(network, size):
    with pytest.raises(ModelFileError, match="multiples of 32"):
        to_file.to_onnx(network, size)


def test_what_ships_is_small_enough_to_clone_and_install():
    files = list((Path(exporting.__file__).parents[1] / "models").iterdir())
    assert sum(path.suffix == ".onnx" for path in files) >= 1
    assert max(path.stat().st_size for path in files) <= 10_000_000


def test_unwritable_output(graph, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot write the model"):
        to_file.save_model(graph, METADATA, tmp_path / "file" / "tiny.onnx")


def test_int8_drift_stops_the_export_and_keeps_the_earlier_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(LIMITS, "int8", ("foreground_drift", 1e-6))  # rounding alone exceeds it
    run = training_run(tmp_path, tiny_network())
    out = tmp_path / "out.onnx"
    out.write_text("earlier")
    argv = ["fedefm_core", "export", str(run), "--out", str(out), "--precision", "int8"]
    monkeypatch.setattr("sys.argv", [*argv, "--calibration-frames", "2", "--parity-frames", "2"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    # Near ties of an untrained network may tip over in fp32 too, and are then told of first.
    assert " drifted from " in capsys.readouterr().err
    assert out.read_text() == "earlier"
    report = json.loads(out.with_suffix(".parity.json").read_text())
    assert report["parity"]["int8"]["foreground_drift"] > 1e-6


def test_run_becomes_an_int8_model(tmp_path, small_settings):
    """A network that calls everything catheter, and is sure of it, cannot drift."""
    network = tiny_network()
    with torch.no_grad():
        network.class_head.weight.zero_()
        network.class_head.bias.copy_(torch.tensor([0.0, 9.0, 0.0]).repeat_interleave(16))
    run = training_run(tmp_path, network)
    prepared = exporting.prepare(run, small_settings)
    metadata = exporting.publish(prepared, tmp_path / "models" / "sure.onnx")
    assert metadata == read_metadata(tmp_path / "models" / "sure.onnx")
    assert metadata.precision == "int8"
    assert metadata.training_config_sha256 == "ab12"
    assert metadata.data == "30 frames of fedefm_core's X-ray simulator, seed 4"
    assert {p.foreground_drift for p in prepared.parities.values()} == {0.0}


def test_weights_alone_are_enough(tmp_path):
    path = training_run(tmp_path, tiny_network()) / "best.safetensors"
    (path.parent / "config.yaml").unlink()
    weights = exporting.find_weights(path)
    assert weights.config == {}
    assert exporting.describe(weights, exporting.ExportSettings()).name == "wirenet-fp32"


def test_parity_on_training_frames_is_refused(tmp_path):
    run = training_run(tmp_path, tiny_network())
    for seed in (4, 5, 7_100_001):
        settings = exporting.ExportSettings(parity_seed=seed)
        with pytest.raises(ConfigError, match=f"'parity_seed' must differ .* {seed}"):
            exporting.prepare(run, settings)


def test_run_without_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"not found: .*best\.safetensors"):
        exporting.find_weights(tmp_path)


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_damaged_training_settings(tmp_path, text):
    run = training_run(tmp_path, tiny_network())
    (run / "config.yaml").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.yaml"):
        exporting.find_weights(run)


@pytest.mark.parametrize("name", ["model.pt", "folder.onnx"])
def test_output_must_be_a_model_file(tmp_path, name):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(OutputError, match=r"NAME\.onnx"):
        exporting.check_out(tmp_path / name)


def test_output_below_a_file_is_refused_early(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot write to the folder"):
        exporting.check_out(tmp_path / "file" / "model.onnx")


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"calibration_folder": "nowhere"}, FrameError, "no file or folder 'nowhere'"),
        ({"keep_float": ("encoder.99",)}, ModelFileError, "part named 'encoder.99'"),
    ],
)
def test_wrong_settings_are_told_before_the_long_work(
    tmp_path, monkeypatch, settings, error, sentence
):
    run = training_run(tmp_path, tiny_network())
    monkeypatch.setattr(exporting, "simulated_images", None)
    with pytest.raises(error, match=sentence):
        exporting.prepare(run, exporting.ExportSettings(precision="int8", **settings))


def test_weights_that_cannot_be_written_are_told_before_the_long_work(tmp_path):
    run = training_run(tmp_path, tiny_network())
    (tmp_path / "folder").mkdir()
    for weights in (tmp_path / "folder", run / "config.yaml" / "x.safetensors"):
        result = run_cli("export", run, "--out", tmp_path / "m.onnx", "--weights", weights)
        assert result.code == 1
        assert "weights file" in result.err
    assert not list(tmp_path.glob("m.*"))


def test_draw_takes_all_of_few_and_a_repeatable_choice_of_many():
    assert exporting.draw(range(3), 5, seed=0) == [0, 1, 2]
    many = exporting.draw(range(1000), 5, seed=0)
    assert len(set(many)) == 5
    assert many == exporting.draw(range(1000), 5, seed=0) != exporting.draw(range(1000), 5, seed=1)


def test_draw_gives_each_frame_the_same_chance():
    taken = np.concatenate([exporting.draw(range(8), 4, seed) for seed in range(400)])
    counts = np.bincount(taken, minlength=8)
    assert np.all(np.abs(counts - 200) < 5 * np.sqrt(400 * 0.25))  # five standard deviations


@pytest.fixture
def small_settings() -> exporting.ExportSettings:
    return exporting.ExportSettings(
        precision="int8", input_size=SIZE, calibration_frames=2, parity_frames=2
    )


def training_run(folder: Path, network: Wirenet) -> Path:
    """A folder as finetune leaves it, as far as export reads it."""
    run = folder / "run"
    header = {"architecture": "wirenet", "settings": NETWORK, "training_config_sha256": "ab12"}
    save_weights(network, run / "best.safetensors", header)
    (run / "config.yaml").write_text("seed: 4\nsteps: 10\nbatch_size: 3\nvalidation:\n  seed: 5\n")
    return run
