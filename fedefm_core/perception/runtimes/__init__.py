# SPDX-License-Identifier: Apache-2.0
"""Inference runtimes behind one small interface; `auto` takes the first that works.

A runtime is a module of this package, named as in ORDER, with a function
`load(path, metadata, threads) -> Runtime` that raises RuntimeUnavailableError when it cannot run
here. A runtime whose package is not installed is skipped, and the reason kept.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from fedefm_core.errors import ConfigError, NotInstalledError, RuntimeUnavailableError
from fedefm_core.perception.contract import verify_graph
from fedefm_core.perception.metadata import ModelMetadata, read_metadata
from fedefm_core.perception.models import resolve_model
from fedefm_core.perception.runtimes.base import NetworkOutput, OverlappingRuntime, Runtime

__all__ = ["ORDER", "NetworkOutput", "OverlappingRuntime", "Runtime", "open_runtime"]

ORDER = ("tensorrt", "openvino", "onnxruntime", "torch")

_log = logging.getLogger(__name__)


def open_runtime(
    model: str | Path | None = None, runtime: str = "auto", threads: int = 0
) -> Runtime:
    """Load a model: a path, the name of a shipped model, or None for the default one.

    runtime: a name of ORDER, or 'auto' for the first of them that works. threads: CPU threads,
    0 leaves the number to the runtime. Raises ModelFileError for a file that is missing or does
    not keep the graph contract, RuntimeUnavailableError when no runtime can be used, and
    ConfigError for a runtime's name or a number of threads that cannot be.
    """
    if runtime not in (*ORDER, "auto"):
        raise ConfigError(f"'runtime' must be one of auto, {', '.join(ORDER)} (got '{runtime}')")
    if threads < 0:
        raise ConfigError(f"'threads' must be 0 (automatic) or more (got {threads})")
    path = resolve_model(model)
    metadata = read_metadata(path)
    verify_graph(path, metadata)
    if runtime != "auto":
        return _load(runtime, path, metadata, threads)
    return _load_first(path, metadata, threads)


def _load_first(path: Path, metadata: ModelMetadata, threads: int) -> Runtime:
    skipped: dict[str, str] = {}
    warnings: list[str] = []
    for name in ORDER:
        try:
            loaded = _load(name, path, metadata, threads)
        except RuntimeUnavailableError as error:
            skipped[name] = str(error)
            if not isinstance(error, NotInstalledError):
                warnings.append(str(error))
            continue
        loaded.skipped_runtimes, loaded.warnings = skipped, warnings
        for warning in warnings:
            _log.warning("Not used: %s", warning)
        _log.info("Runtime %s runs %s; skipped: %s", name, path, skipped or "none")
        return loaded
    reasons = " ".join(f"{name}: {reason}" for name, reason in skipped.items())
    raise RuntimeUnavailableError(f"No inference runtime can run {path}. {reasons}")


def _load(name: str, path: Path, metadata: ModelMetadata, threads: int) -> Runtime:
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ImportError as error:
        missing = error.name or str(error)
        if missing == f"{__name__}.{name}":
            raise NotInstalledError(f"This release has no runtime '{name}' yet.") from error
        raise NotInstalledError(
            f"The runtime '{name}' cannot be used: '{missing}' is not installed or cannot be "
            "imported."
        ) from error
    loaded: Runtime = module.load(path, metadata, threads)
    return loaded
