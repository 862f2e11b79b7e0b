# SPDX-License-Identifier: Apache-2.0
"""A trained network to one self-describing ONNX file; the graph contract is ModelMetadata's."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedefm_core.errors import ModelFileError, OutputError
from fedefm_core.networks.segmentation import (
    STRIDE,
    CellNetwork,
    SegmentationNetwork,
    decide,
    normalise,
)
from fedefm_core.perception.metadata import ModelMetadata, attach_metadata, weights_sha256
from fedefm_core.perception.runtimes.base import IMAGE, OUTPUTS
from fedefm_core.provenance import git_revision, package_versions

OPSET = 18  # what the exporter writes natively; OpenVINO, ONNX Runtime and TensorRT 10+ read it
SIZE_MULTIPLE = 32


class Graph(nn.Module):
    """What the file computes: (1, 1, H, W) uint8 to label map, probability and tip heat map.

    Of a network that gives its classes in cells, the label is found there, before the pixel
    shuffle moves two small planes instead of three large ones. Plain float sums and comparisons
    stand for argmax and softmax: engines fuse them into one pass, and TensorRT knows uint8 only as
    a cast at the graph's ends. Raises ModelFileError for what is no segmentation network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, SegmentationNetwork):
            raise ModelFileError(
                f"Only segmentation networks can be exported (got {type(network).__name__})"
            )
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, network = normalise(image), self.network
        classes, tip_logits = network.cells(x) if isinstance(network, CellNetwork) else network(x)
        label, probability = decide(*classes.chunk(3, dim=1))
        return _plane(label), _plane(255.0 * probability + 0.5), torch.sigmoid(tip_logits)


def to_onnx(network: nn.Module, input_size: tuple[int, int] = (512, 512)) -> onnx.ModelProto:
    """Trace network, in evaluation mode, into an ONNX graph for one image of input_size.

    Batch norm is folded into the convolutions; initialisers keep the names of the parameters.
    Raises ModelFileError for a network or a size that the graph contract cannot hold.
    """
    graph = Graph(network).eval()
    step = math.lcm(SIZE_MULTIPLE, graph.network.size_multiple)
    if any(side <= 0 or side % step for side in input_size):
        raise ModelFileError(f"The input size must be multiples of {step} (got {input_size})")
    image = torch.zeros(1, 1, *input_size, dtype=torch.uint8)
    with _quiet_exporter():
        program = torch.onnx.export(
            graph,
            (image,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGE],
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return _without_traces(model)


def save_model(model: onnx.ModelProto, metadata: ModelMetadata, path: Path) -> ModelMetadata:
    """Write model to path with metadata, whose hash, versions and git revision are filled in.

    Returns the metadata as written. Raises what write_model does.
    """
    metadata = replace(
        metadata,
        weights_sha256=weights_sha256(model),
        versions=package_versions(),
        git_revision=git_revision(),
    )
    write_model(model, metadata, path)
    return metadata


def write_model(model: onnx.ModelProto, metadata: ModelMetadata, path: Path) -> None:
    """Write model to path with metadata as they are, in one step.

    Raises OutputError when path cannot be written.
    """
    attach_metadata(model, metadata)
    onnx.checker.check_model(model)
    content = model.SerializeToString(deterministic=True)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"Cannot write the model {path}: {error.strerror}") from error


def export_onnx(
    network: nn.Module,
    path: Path,
    name: str,
    architecture: str = "wirenet",
    input_size: tuple[int, int] = (512, 512),
    training_config_sha256: str = "",
    data: str = "",
) -> ModelMetadata:
    """Export network in float to path. Returns the metadata as written."""
    metadata = ModelMetadata(
        name=name,
        architecture=architecture,
        precision="fp32",
        input_size=input_size,
        weights_sha256="",
        training_config_sha256=training_config_sha256,
        data=data,
    )
    return save_model(to_onnx(network, input_size), metadata, path)


def _plane(values: Tensor) -> Tensor:
    """(B, 16, H/4, W/4), or (B, 1, H, W), to (B, H, W) uint8."""
    in_cells = values.shape[1] > 1
    plane = functional.pixel_shuffle(values, STRIDE) if in_cells else values
    return plane.squeeze(1).to(torch.uint8)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes: they hold source paths and change from machine to machine."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for holder in (graph, model):
        del holder.metadata_props[:]
        holder.doc_string = ""
    return model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence notes of the exporter that ask nothing of the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
