# SPDX-License-Identifier: Apache-2.0
"""Real images as backgrounds: what is unknown stays unknown, what is known is kept."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fedefm_core.config import parse_settings
from fedefm_core.errors import ConfigError, FrameError, SimulationError
from fedefm_core.perception.types import UNKNOWN
from fedefm_core.simulation import SimulationSettings, simulate_frame, simulate_sequence
from fedefm_core.simulation.backgrounds import (
    inside_polygons,
    random_picture,
    unlabelled_lines,
)
from fedefm_core.simulation.settings import BackgroundSettings

SIDE = 256


def radiograph(seed: int = 0) -> np.ndarray:
    """Grey noise with one dark line from top to bottom at x = 100."""
    grey = np.random.default_rng(seed).normal(140, 4, (SIDE, SIDE))
    grey[:, 98:103] -= 60
    return np.clip(grey, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"frame_{index}.png"), radiograph(index))
        outline = "7 0.35 0.0 0.45 0.0 0.45 1.0 0.35 1.0\n"
        (tmp_path / "labels" / f"frame_{index}.txt").write_text(outline)
    return tmp_path


def settings(folder: Path, **changes: object) -> BackgroundSettings:
    return BackgroundSettings.model_validate({"path": folder / "images", "share": 1.0, **changes})


def test_a_dark_line_is_unlabelled_and_flat_noise_is_not() -> None:
    lines = unlabelled_lines(radiograph())
    assert lines[20:-20, 98:103].mean() > 0.95
    assert lines[:, 140:].mean() < 0.02


def test_the_edge_of_the_field_is_no_unlabelled_line() -> None:
    grey = np.full((SIDE, SIDE), 120, np.uint8)
    grey[:4], grey[4:7] = 120, 20
    assert not unlabelled_lines(grey).any()


def test_unlabelled_lines_are_unknown_where_no_instrument_is_drawn(folder: Path) -> None:
    chosen = SimulationSettings(size=SIDE, backgrounds=(settings(folder),), empty_fraction=1.0)
    frame = simulate_frame(1, 0, chosen)
    assert set(np.unique(frame.label_map)) == {0, UNKNOWN}


def test_what_a_polygon_encloses_is_known_background(folder: Path) -> None:
    source = settings(folder, polygons=folder / "labels")
    chosen = SimulationSettings(size=SIDE, backgrounds=(source,), empty_fraction=1.0)
    assert not simulate_frame(1, 0, chosen).label_map.any()


def test_instruments_are_drawn_darker_and_labelled_over_the_unknown(folder: Path) -> None:
    chosen = SimulationSettings(size=SIDE, backgrounds=(settings(folder),), empty_fraction=0.0)
    shown = [simulate_frame(2, index, chosen) for index in range(12)]
    labels = [np.isin(frame.label_map, (1, 2)) for frame in shown]
    assert sum(mask.any() for mask in labels) >= 10
    darker = 0
    for frame, mask in zip(shown, labels, strict=True):
        ring = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) - mask > 0
        ring &= frame.label_map == 0
        if mask.any() and ring.any():
            difference = frame.frame.pixels[ring].mean() - frame.frame.pixels[mask].mean()
            darker += difference > 0
    assert darker >= 8  # some are shown inverted


def test_views_without_instruments_have_none(folder: Path) -> None:
    source = settings(folder, instruments=False, unlabelled_instruments=False)
    chosen = SimulationSettings(size=SIDE, backgrounds=(source,), empty_fraction=0.0)
    frames = [simulate_frame(3, index, chosen) for index in range(4)]
    assert all(not f.label_map.any() and not f.instruments for f in frames)


def test_same_seed_same_window(folder: Path) -> None:
    first, second = (
        random_picture(np.random.default_rng(5), settings(folder), 64) for _ in range(2)
    )
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": Path("/nowhere/at/all")}, "do not exist"),
        ({"pattern": "*.dcm"}, "fits the pattern"),
        ({"polygons": Path("/nowhere/at/all")}, "folder of polygons .* does not exist"),
    ],
)
def test_missing_images_are_told(folder: Path, changes: dict[str, object], words: str) -> None:
    chosen = SimulationSettings(size=128, backgrounds=(settings(folder, **changes),))
    with pytest.raises(SimulationError, match=words):
        simulate_frame(0, 0, chosen)


@pytest.mark.parametrize("line", ["1 0.1 0.2 0.3", "1", "1 0.1 nan", "1 100 200 300 400"])
def test_a_damaged_polygon_is_told_with_its_line(folder: Path, line: str) -> None:
    (folder / "labels" / "frame_1.txt").write_text(f"\n{line}\n")
    source = settings(folder, polygons=folder / "labels")
    with pytest.raises(SimulationError, match=r"Line 2 of .*frame_1\.txt"):
        simulate_frame(0, 0, SimulationSettings(size=128, backgrounds=(source,)))


def test_polygons_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SimulationError, match=r"a\.txt cannot be read"):
        inside_polygons(tmp_path, "a", (64, 64))


def test_a_blank_line_is_no_polygon(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("3 0 0 0.5 0 0.5 0.5 0 0.5\n\n")
    assert inside_polygons(tmp_path, "a", (64, 64))[:33, :33].all()


@pytest.mark.parametrize("shape", [(7, 9), (5, 300), (2, 3000)])
def test_small_and_narrow_pictures_are_enlarged(tmp_path: Path, shape: tuple[int, int]) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), np.full(shape, 90, np.uint8))
    source = BackgroundSettings(path=tmp_path, share=1.0)
    for seed in range(8):
        picture, _ = random_picture(np.random.default_rng(seed), source, 64)
        np.testing.assert_allclose(picture, 90 / 255, atol=1e-6)


def test_a_broken_picture_is_told_with_its_name(folder: Path) -> None:
    (folder / "images" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(FrameError, match=r"broken\.png"):
        random_picture(np.random.default_rng(0), settings(folder), 64)


def test_shares_of_more_than_all_are_refused(folder: Path) -> None:
    sources = [{"path": str(folder / "images"), "share": share} for share in (0.7, 0.4)]
    with pytest.raises(ConfigError, match=r"backgrounds.*add up to 1 at most"):
        parse_settings(SimulationSettings, {"backgrounds": sources})
    sources[1]["share"] = 0.3
    assert len(parse_settings(SimulationSettings, {"backgrounds": sources}).backgrounds) == 2


def test_a_sequence_on_views_without_instruments_has_none(folder: Path) -> None:
    source = settings(folder, instruments=False, unlabelled_instruments=False)
    chosen = SimulationSettings(size=SIDE, backgrounds=(source,))
    frames = list(simulate_sequence(1, 2, chosen))
    assert len(frames) == 2
    assert all(not f.label_map.any() and not f.instruments for f in frames)
