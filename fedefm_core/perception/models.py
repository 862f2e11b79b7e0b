# SPDX-License-Identifier: Apache-2.0
"""Where model files are: those shipped with the package, by name, and all others, by path."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fedefm_core.errors import ModelFileError

DEFAULT_MODEL = "wirenet-int8"


def shipped_models() -> dict[str, Path]:
    """The models shipped with the package: name (the file's stem) to path, sorted by name."""
    folder = Path(str(files("fedefm_core.models")))
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def resolve_model(name_or_path: str | Path | None = None) -> Path:
    """Path of a model: None is the shipped default, a bare name a shipped model, else a path.

    Raises ModelFileError, naming the shipped models, when there is no such file.
    """
    shipped = shipped_models()
    name = DEFAULT_MODEL if name_or_path is None else str(name_or_path)
    if name in shipped:
        return shipped[name]
    path = Path(name).expanduser()
    if name_or_path is not None and path.is_file():
        return path
    known = ", ".join(shipped) or "none"
    raise ModelFileError(
        f"There is no model '{name}': it is neither a file nor a shipped model (shipped: {known})."
    )
