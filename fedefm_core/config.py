# SPDX-License-Identifier: Apache-2.0
"""Settings: load from YAML, override, resolve, save; a wrong key is answered with the nearest one.

Each settings class lives beside the code that it sets; this module only knows how to read them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fedefm_core.errors import ConfigError


class Settings(BaseModel):
    """Base of all settings classes: immutable, typed, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(
    cls: type[SettingsT],
    path: Path | Sequence[Path] | None = None,
    overrides: Sequence[str] = (),
) -> SettingsT:
    """Read cls from a YAML file, then apply overrides such as 'optimiser.learning_rate=1e-3'.

    Of several files, a later one adds to the earlier ones and wins where both say something.

    Raises ConfigError, naming the file, the key, what was expected and what came.
    """
    paths = [path] if isinstance(path, Path) else list(path or ())
    values: dict[str, Any] = {}
    for file in paths:
        values = merge_values(values, _read_yaml(file))
    for override in overrides:
        _apply_override(values, override)
    where = ", ".join(str(file) for file in paths) or "the settings"
    return parse_settings(cls, values, where=where)


def parse_settings(
    cls: type[SettingsT], values: Mapping[str, Any], where: str = "the settings"
) -> SettingsT:
    """Build cls from plain values; where names their origin in messages."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(cls, item) for item in error.errors()]
        raise ConfigError(f"In {where}: " + "; ".join(lines)) from error


def save_settings(settings: Settings, path: Path) -> None:
    """Write settings, fully resolved, as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def settings_sha256(settings: Settings) -> str:
    """Hash of the resolved settings, independent of key order."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} must hold a mapping of settings (got a {type(values).__name__})"
        )
    return values


def merge_values(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings of both, mappings within mappings too; second wins where both speak."""
    merged = dict(first)
    for key, value in second.items():
        inner = merged.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        merged[key] = merge_values(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"An override must look like key=value (got '{override}')")
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"'{parent}' in the override '{override}' has no settings inside")
    try:
        values[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The value of the override '{override}' is not valid YAML") from error


def _explain(cls: type[Settings], item: Any) -> str:
    location = item["loc"]
    name = ".".join(str(part) for part in location)
    if item["type"] != "extra_forbidden":
        return f"'{name}': {item['msg']} (got {item['input']!r})"
    nearest = difflib.get_close_matches(str(location[-1]), _keys_at(cls, location[:-1]), n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"'{name}' is no known setting{hint}"


def _keys_at(cls: type[Settings], parents: Sequence[Any]) -> list[str]:
    current: Any = cls
    for parent in parents:
        if hasattr(current, "model_fields"):
            current = current.model_fields[str(parent)].annotation
        else:  # of several classes, the one whose 'name' was given
            named = {_default_name(choice): choice for choice in get_args(current)}
            current = named.get(parent)
        if current is None:
            return []
    choices = get_args(current) or (current,)
    classes = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
    return [key for chosen in classes for key in chosen.model_fields]


def _default_name(choice: Any) -> Any:
    """What the field 'name' of a settings class is by default; None where there is none."""
    fields = getattr(choice, "model_fields", {})
    return fields["name"].default if "name" in fields else None
