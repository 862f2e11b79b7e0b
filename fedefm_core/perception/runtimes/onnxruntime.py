# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from fedefm_core.errors import RuntimeUnavailableError
from fedefm_core.perception.metadata import ModelMetadata
from fedefm_core.perception.runtimes.base import IMAGE, OUTPUTS, NetworkOutput, Runtime


class OnnxRuntime:
    """One inference session."""

    name = "onnxruntime"

    def __init__(self, session: ort.InferenceSession, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self.skipped_runtimes: Mapping[str, str] = {}
        self.warnings: Sequence[str] = ()
        self._session = session

    def infer(self, image: npt.NDArray[np.uint8]) -> NetworkOutput:
        """Run the network on image (H, W) uint8."""
        outputs = self._session.run(OUTPUTS, {IMAGE: image[None, None]})
        return NetworkOutput(*(output[0] for output in outputs))


def load(path: Path, metadata: ModelMetadata, threads: int) -> Runtime:
    """Open a session; RuntimeUnavailableError when ONNX Runtime cannot run the model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no public base class
        raise RuntimeUnavailableError(f"ONNX Runtime cannot run {path}: {error}") from error
    return OnnxRuntime(session, metadata)
