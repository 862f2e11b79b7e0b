# SPDX-License-Identifier: Apache-2.0
"""A module that stands in for TensorRT where only its interface matters.

The environment variable FAKE_TENSORRT chooses what its builder does: 'build' (the default),
'refuse', 'crash' or 'hang'. What a plan is made of can be read from it as text.
"""

from __future__ import annotations

import os
import time
from typing import Any

__version__ = "11.4.0"


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = "internal", "error", "warning"

    def log(self, severity: str, message: str) -> None:
        """Of the user."""


class Logger(ILogger):
    ERROR = "error"

    def __init__(self, level: str) -> None:
        self.level = level


class IProgressMonitor:
    pass


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 1


class MemoryPoolType:
    WORKSPACE = "workspace"


class _TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content or b"timed"


class _Config:
    builder_optimization_level = -1
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.workspace = 0
        self.cache: _TimingCache | None = None

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.workspace = size

    def create_timing_cache(self, content: bytes) -> _TimingCache:
        return _TimingCache(content)

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        if cache.content == b"of another GPU" and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> _TimingCache | None:
        return self.cache


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> dict[str, Any]:
        return {"flags": flags}

    def create_builder_config(self) -> _Config:
        return _Config()

    def build_serialized_network(self, network: dict[str, Any], config: _Config) -> bytes | None:
        does = os.environ.get("FAKE_TENSORRT", "build")
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 4)
        if does == "crash":
            os.abort()
        for step in range(4):
            while does == "hang":
                monitor.step_complete("Building engine", 0)
                time.sleep(0.01)
            if not monitor.step_complete("Building engine", step):
                return None
        if does == "refuse":
            self.logger.log(ILogger.ERROR, "no kernel for this layer")
            return None
        monitor.phase_finish("Building engine")
        cache = config.cache.content.decode() if config.cache else "none"
        level = config.builder_optimization_level
        text = f"flags {network['flags']} level {level} workspace {config.workspace} cache {cache}"
        return text.encode()


class _ParserError:
    def desc(self) -> str:
        return "no such operator"


class OnnxParser:
    num_errors = 1

    def __init__(self, network: dict[str, Any], logger: ILogger) -> None:
        pass

    def parse(self, model: bytes) -> bool:
        return model != b"bad"

    def get_error(self, index: int) -> _ParserError:
        return _ParserError()
