# SPDX-License-Identifier: Apache-2.0
"""Settings from files and overrides: later ones win, and mistakes are told with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedefm_core.config import Settings, load_settings, save_settings, settings_sha256
from fedefm_core.errors import ConfigError


class Inner(Settings):
    depth: int = 1
    names: tuple[str, ...] = ()


class Outer(Settings):
    inner: Inner = Inner()
    rate: float = 0.5


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_later_files_add_to_earlier_ones_and_overrides_win(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "rate: 0.1\ninner:\n  depth: 3\n  names: [x]\n")
    second = write(tmp_path / "b.yaml", "inner:\n  names: [y, z]\n")
    settings = load_settings(Outer, [first, second], ["rate=2"])
    assert settings == Outer(rate=2.0, inner=Inner(depth=3, names=("y", "z")))


def test_one_file_no_file_and_an_empty_file(tmp_path: Path) -> None:
    assert load_settings(Outer) == Outer()
    assert load_settings(Outer, write(tmp_path / "a.yaml", "")) == Outer()
    assert load_settings(Outer, write(tmp_path / "a.yaml", "rate: 3")).rate == 3.0


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    settings = Outer(inner=Inner(depth=7, names=("p",)))
    save_settings(settings, tmp_path / "sub" / "config.yaml")
    again = load_settings(Outer, tmp_path / "sub" / "config.yaml")
    assert again == settings
    assert settings_sha256(again) == settings_sha256(settings) != settings_sha256(Outer())


@pytest.mark.parametrize(
    ("text", "overrides", "sentence"),
    [
        ("inner:\n  dept: 3\n", [], r"'inner\.dept' is no known setting; did you mean 'depth'\?"),
        ("rate: fast\n", [], r"'rate': .*got 'fast'"),
        ("[1, 2]\n", [], "must hold a mapping"),
        ("rate: [1\n", [], "is not valid YAML"),
        ("rate: 1\n", ["rate"], "must look like key=value"),
        ("rate: 1\n", ["rate.x=1"], "has no settings inside"),
    ],
)
def test_mistakes_are_told_with_their_place(
    tmp_path: Path, text: str, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_settings(Outer, write(tmp_path / "wrong.yaml", text), overrides)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read the configuration .*nowhere\.yaml"):
        load_settings(Outer, [tmp_path / "nowhere.yaml"])
