# SPDX-License-Identifier: Apache-2.0
"""From trained weights to a model file that is known to give the same results."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import yaml
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.errors import ConfigError, OutputError, WeightsError
from fedefm_core.evaluation.run_records import BEST_WEIGHTS, CONFIG_FILE
from fedefm_core.export.half import to_half
from fedefm_core.export.onnx import save_model, to_onnx
from fedefm_core.export.parity import (
    Image,
    Infer,
    Parity,
    enforce,
    measure,
    torch_reference,
)
from fedefm_core.export.quantisation import convolutions_of, quantise, signed_activations
from fedefm_core.frames import Frame, open_source
from fedefm_core.networks import load_segmenter, read_weights_header
from fedefm_core.perception import ModelMetadata, open_runtime
from fedefm_core.perception.metadata import weights_sha256
from fedefm_core.perception.preprocess import preprocess
from fedefm_core.provenance import provenance
from fedefm_core.simulation import simulate_frame

PARITY_RUNTIME = "openvino"  # the default runtime: what the robot will run


class ExportSettings(Settings):
    """precision: of the file. activations: of int8; TensorRT needs int8, OpenVINO drifts less with
    uint8. calibration: frames that choose the ranges of int8, simulated ones
    and, where a folder is named, as many real ones. keep_float: parts of the network that int8
    leaves in float. parity: simulated frames to compare on; their seed must differ from those of
    calibration and training."""

    name: str = ""
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    activations: Literal["uint8", "int8"] = "uint8"
    input_size: tuple[int, int] = (512, 512)
    calibration_frames: int = Field(128, ge=1)
    calibration_seed: int = Field(7_100_001, ge=0)
    calibration_folder: Path | None = None
    keep_float: tuple[str, ...] = ()
    parity_frames: int = Field(100, ge=1)
    parity_seed: int = Field(7_200_003, ge=0)


@dataclass(frozen=True)
class TrainedWeights:
    """A weights file, its header, and the settings of its training, {} where unknown."""

    path: Path
    header: Mapping[str, Any]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Export:
    """A model that is ready to be published, and how far it is from what it came from.

    parities: by precision; that of fp32 compares with the network, the others with fp32.
    """

    model: onnx.ModelProto
    metadata: ModelMetadata
    parities: Mapping[str, Parity]
    report: Mapping[str, Any]


def find_weights(source: Path) -> TrainedWeights:
    """source: a weights file, or the folder of a training run, whose best weights are taken.

    Raises WeightsError when there are none, or the training's settings cannot be read.
    """
    path = source / BEST_WEIGHTS if source.is_dir() else source
    header = read_weights_header(path)
    config = path.parent / CONFIG_FILE
    return TrainedWeights(path, header, _read_config(config) if config.is_file() else {})


def prepare(source: Path, settings: ExportSettings) -> Export:
    """Export the weights at source in memory and measure parity; writes no file that stays.

    Raises WeightsError, ConfigError, FrameError for calibration images, and ModelFileError for a
    part to be kept in float that there is not: all that can be told is told before the long work.
    """
    weights = find_weights(source)
    _check_seeds(settings, weights.config)
    if settings.calibration_folder is not None:
        open_source(settings.calibration_folder)
    network = load_segmenter(weights.path)
    metadata = describe(weights, settings)
    model = to_onnx(network, settings.input_size)
    for part in settings.keep_float:
        convolutions_of(model.graph.node, part)
    images = simulated_images(settings.parity_seed, settings.parity_frames, settings.input_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        fp32 = _runtime(model, replace(metadata, precision="fp32"), path)
        parities = {"fp32": measure(torch_reference(network), fp32, images, ("torch", "fp32"))}
        if settings.precision == "int8":
            model = quantise(model, calibration_images(settings), settings.keep_float)
            if settings.activations == "int8":
                model = signed_activations(model)
        elif settings.precision != "fp32":
            model = to_half(model, settings.precision)
        if settings.precision != "fp32":
            exported, precision = _runtime(model, metadata, path), settings.precision
            parities[precision] = measure(fp32, exported, images, ("fp32", precision))
    metadata = replace(metadata, weights_sha256=weights_sha256(model))
    return Export(model, metadata, parities, _report(weights, metadata, parities, settings))


def publish(export: Export, out: Path) -> ModelMetadata:
    """Write the exported model to out, if it has not drifted; returns its metadata as written.

    Raises ParityError when it drifted, and OutputError; what out held before is then kept.
    """
    for precision, parity in export.parities.items():
        enforce(parity, precision)
    return save_model(export.model, export.metadata, out)


def check_out(out: Path) -> None:
    """Raise OutputError now, not after a long run, when out cannot become a model file."""
    if out.suffix != ".onnx" or out.is_dir():
        raise OutputError(f"The model must be written to a file NAME.onnx (got {out})")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise OutputError(f"Cannot write to the folder {out.parent}: {error.strerror}") from error


def describe(weights: TrainedWeights, settings: ExportSettings) -> ModelMetadata:
    """What the model file will say of itself, as far as the weights tell."""
    architecture = weights.header["architecture"]
    return ModelMetadata(
        name=settings.name or f"{architecture}-{settings.precision}",
        architecture=architecture,
        precision=settings.precision,
        input_size=settings.input_size,
        weights_sha256="",
        training_config_sha256=str(weights.header.get("training_config_sha256", "")),
        data=_describe_data(weights.config),
    )


def simulated_images(seed: int, count: int, size: tuple[int, int]) -> list[Image]:
    """Frames 0 to count - 1 of the simulator's seed, as the network sees them."""
    return [preprocess(simulate_frame(seed, i).frame, size)[0] for i in range(count)]


def calibration_images(settings: ExportSettings) -> list[Image]:
    """Simulated images, and as many real ones where a folder is named, drawn from all it holds."""
    count, size, seed = (
        settings.calibration_frames,
        settings.input_size,
        settings.calibration_seed,
    )
    images = simulated_images(seed, count, size)
    if settings.calibration_folder is None:
        return images
    frames = draw(open_source(settings.calibration_folder), count, seed)
    return images + [preprocess(frame, size)[0] for frame in frames]


def draw(frames: Iterable[Frame], count: int, seed: int) -> list[Frame]:
    """Draw count of frames, each with the same chance, in one pass (reservoir sampling)."""
    rng = np.random.default_rng(seed)
    drawn: list[Frame] = []
    for index, frame in enumerate(frames):
        if index < count:
            drawn.append(frame)
        elif (place := int(rng.integers(index + 1))) < count:
            drawn[place] = frame
    return drawn


def _runtime(model: onnx.ModelProto, metadata: ModelMetadata, folder: Path) -> Infer:
    path = folder / f"{metadata.precision}.onnx"
    save_model(model, metadata, path)
    return open_runtime(path, PARITY_RUNTIME).infer


def _report(
    weights: TrainedWeights,
    metadata: ModelMetadata,
    parities: Mapping[str, Parity],
    settings: ExportSettings,
) -> dict[str, Any]:
    return {
        "name": metadata.name,
        "precision": metadata.precision,
        "weights": weights.path.name,
        "weights_sha256": metadata.weights_sha256,
        "training_config_sha256": metadata.training_config_sha256,
        "runtime": PARITY_RUNTIME,
        "parity": {precision: parity.to_dict() for precision, parity in parities.items()},
        "provenance": provenance(settings, seed=settings.parity_seed),
    }


def _check_seeds(settings: ExportSettings, config: Mapping[str, Any]) -> None:
    """A frame that was trained or calibrated on says nothing about drift."""
    validation = config.get("validation", {})
    taken = {
        "the training's seed": config.get("seed"),
        "the validation's seed": validation.get("seed") if isinstance(validation, dict) else None,
        "calibration_seed": settings.calibration_seed,
    }
    for name, seed in taken.items():
        if seed == settings.parity_seed:
            raise ConfigError(f"'parity_seed' must differ from {name} (both are {seed})")


def _describe_data(config: Mapping[str, Any]) -> str:
    try:
        samples = config["steps"] * config["batch_size"]
        pool, seed = config.get("pool_frames", 0), config["seed"]
        drawn = f"{pool} frames" if pool else f"{samples} frames"
        text = f"{drawn} of fedefm_core's X-ray simulator, seed {seed}"
        if pool:
            text += f", seen in {config['steps']} steps of {config['batch_size']} crops"
        sources = (config.get("simulation") or {}).get("backgrounds") or ()
        names = [f"{source['path']} ({100 * source['share']:.0f} %)" for source in sources]
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
    return f"{text}; drawn in part on real images: {', '.join(names)}" if names else text


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise WeightsError(f"Cannot read the training's settings {path}: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} must hold the training's settings as a mapping")
    return config
