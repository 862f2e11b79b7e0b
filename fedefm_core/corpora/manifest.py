# SPDX-License-Identifier: Apache-2.0
"""The manifest: which corpora there are, where they lie, what they are called, who holds them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from fedefm_core.config import Settings, SettingsT, load_settings, parse_settings
from fedefm_core.corpora.adapters import ADAPTERS
from fedefm_core.corpora.simulated import SIMULATED
from fedefm_core.errors import ConfigError, ManifestError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class WindowSettings(Settings):
    """Grey levels of values that are no picture yet, as CT: center -+ width / 2 fills 0 to 255."""

    center: float
    width: float = Field(ge=1)


class SplitSettings(Settings):
    """How samples are divided. native: by the data set's own division where it has one.

    validation, test: shares of the groups (patients, cines), drawn by the manifest's seed: test
    where the data set itself has none, validation likewise, out of what is for training.
    """

    native: bool = True
    validation: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.2, ge=0, lt=1)


class CorpusSettings(Settings):
    """One kind of image from one place.

    adapter: layout of the folder path, or 'simulated:KIND', which needs none. fallback: a
    simulated corpus that stands in where path does not exist. label: one of the manifest's
    labels; the corpus's name without one. every: of the frames of a group, each every-th only.
    limit: at most so many samples, spread evenly over all. count: samples of a simulated corpus.
    """

    adapter: str
    path: Path | None = None
    fallback: str | None = None
    label: str | None = None
    every: int = Field(1, ge=1)
    limit: int | None = Field(None, ge=1)
    count: int = Field(400, ge=1)
    window: WindowSettings | None = None
    splits: SplitSettings = SplitSettings()


class PartitionSettings(Settings):
    """silos: their number; None: one for each kind of image. unseen: the proportion p of kinds
    that belong to one silo alone; the rest is spread over all. seed: who gets what."""

    silos: int | None = Field(None, ge=1)
    unseen: float = Field(1.0, ge=0, le=1)
    seed: int = Field(0, ge=0)


DEFAULT_CORPORA = {
    name: CorpusSettings(adapter=adapter)
    for name, adapter in ((adapter.partition(":")[2], adapter) for adapter in SIMULATED)
}


class Manifest(Settings):
    """Corpora, and who holds them; the default needs no files.

    size: side of the samples in pixels. seed: of splits and simulated images. root: folder that
    relative paths start from. cache: folder of decoded corpora. labels: names of the kinds of
    image, in the order of their numbers; without, the corpora's own in their order. silos: names
    of the corpora that each silo holds, a corpus of several silos is dealt out among them;
    without, partition says it.
    """

    size: int = Field(64, ge=8, le=1024)
    seed: int = Field(0, ge=0)
    root: Path = Path()
    cache: Path | None = None
    labels: tuple[str, ...] = ()
    corpora: dict[Name, CorpusSettings] = Field(default=DEFAULT_CORPORA, min_length=1)
    silos: dict[Name, tuple[Name, ...]] | None = None
    partition: PartitionSettings = PartitionSettings()

    def path_of(self, name: str) -> Path | None:
        """Where the files of a corpus are, None of a simulated one."""
        path = self.corpora[name].path
        return None if path is None else self.root / path


def load_manifest(path: Path | None = None, overrides: Sequence[str] = ()) -> Manifest:
    """Read a manifest; without a path, the embedded one of simulated corpora.

    Paths in it are relative to root, and root to the folder of the manifest. Raises
    ManifestError, a sentence that names the file and the key.
    """
    try:
        values = load_settings(_Unchecked, path, overrides).model_extra or {}
        where = str(path) if path else "the manifest"
        if path is None:
            values["corpora"] = _over_default(values.get("corpora", {}))
        if isinstance(values.get("corpora"), dict):
            corpora = values["corpora"].items()
            values["corpora"] = {n: _corpus(v, f"{where}, corpora.{n}") for n, v in corpora}
        if path is not None:
            values["root"] = path.absolute().parent / str(values.get("root", "."))
            if values.get("cache") is not None:
                values["cache"] = path.absolute().parent / str(values["cache"])
        manifest = parse_settings(Manifest, values, where)
    except ManifestError:
        raise
    except ConfigError as error:
        raise ManifestError(str(error)) from error
    check_names(manifest, where)
    return manifest


def label_names(manifest: Manifest) -> tuple[str, ...]:
    """Names of the kinds of image; the label of a sample is an index into it."""
    if manifest.labels:
        return manifest.labels
    return tuple(dict.fromkeys(label_of(manifest, name) for name in manifest.corpora))


def label_of(manifest: Manifest, name: str) -> str:
    """What a corpus is labelled."""
    return manifest.corpora[name].label or name


def check_names(manifest: Manifest, where: str = "the manifest") -> None:
    """Raise ManifestError for a name that nothing bears; nothing is opened."""
    labels = label_names(manifest)
    if len(set(labels)) < len(labels):
        raise ManifestError(f"In {where}: 'labels' names one label twice ({', '.join(labels)})")
    for name, corpus in manifest.corpora.items():
        key = f"corpora.{name}"
        _one_of(corpus.adapter, (*SIMULATED, *ADAPTERS), f"{key}.adapter", where)
        _one_of(label_of(manifest, name), labels, f"{key}.label", where)
        if corpus.fallback is not None:
            _one_of(corpus.fallback, SIMULATED, f"{key}.fallback", where)
        if corpus.adapter not in SIMULATED and corpus.path is None:
            raise ManifestError(f"In {where}: '{key}' needs a 'path' (adapter {corpus.adapter})")
        if corpus.adapter in SIMULATED and corpus.path is not None:
            raise ManifestError(f"In {where}: '{key}' is simulated and has no 'path'")
    for silo, held in (manifest.silos or {}).items():
        if not held:
            raise ManifestError(f"In {where}: the silo '{silo}' is empty; give it a corpus")
        for name in held:
            _one_of(name, manifest.corpora, f"silos.{silo}", where)
    if manifest.silos is not None and not manifest.silos:
        raise ManifestError(f"In {where}: 'silos' names none; leave it out to use 'partition'")


class _Unchecked(Settings):
    """Any keys: the entries of a mapping are parsed one by one, so that each is named."""

    model_config = ConfigDict(extra="allow")


def _over_default(given: Any) -> dict[str, Any]:
    """The embedded corpora, as plain values, with what was given of them."""
    corpora: dict[str, Any] = {n: c.model_dump() for n, c in DEFAULT_CORPORA.items()}
    for name, values in given.items():
        corpora[name] = {**corpora.get(name, {}), **values}
    return corpora


def _corpus(values: Any, where: str) -> CorpusSettings:
    if not isinstance(values, Mapping):
        raise ManifestError(f"In {where}: expected a mapping of settings (got {values!r})")
    return _parsed(CorpusSettings, values, where)


def _parsed(cls: type[SettingsT], values: Mapping[str, Any], where: str) -> SettingsT:
    try:
        return parse_settings(cls, {str(key): value for key, value in values.items()}, where)
    except ConfigError as error:
        raise ManifestError(str(error)) from error


def _one_of(name: str, known: Iterable[str], key: str, where: str) -> None:
    names = list(known)
    if name in names:
        return
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    raise ManifestError(
        f"In {where}: '{key}' must be one of {', '.join(names)} (got '{name}'){hint}"
    )
