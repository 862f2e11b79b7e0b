# SPDX-License-Identifier: Apache-2.0
"""Ingredients of the simulator: by default all; each can be left out, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from fedefm_core.simulation import SimulationSettings, simulate_frame
from fedefm_core.simulation.anatomy import background
from fedefm_core.simulation.scene import random_scene
from fedefm_core.simulation.sequence import random_insertion
from fedefm_core.simulation.settings import IngredientSettings

SIDE = 128
NAMES = tuple(IngredientSettings.model_fields)


def without(*names: str) -> SimulationSettings:
    return SimulationSettings(
        size=SIDE, ingredients=IngredientSettings(**dict.fromkeys(names, False))
    )


def test_the_default_is_all_of_them() -> None:
    assert without() == SimulationSettings(size=SIDE)
    assert all(getattr(IngredientSettings(), name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_out_changes_pixels_and_leaves_the_instruments(name: str) -> None:
    rare = name in ("foreign_bodies", "vessels", "strengthening")  # not in every frame
    changed = 0
    for index in range(8):
        kind = "human" if rare else ("human", "animal", "phantom", "simulation")[index % 4]
        full = simulate_frame(11, index, SimulationSettings(size=SIDE), kind)
        less = simulate_frame(11, index, without(name), kind)
        changed += (full.frame.pixels != less.frame.pixels).any()
        if name == "console":  # nothing is dark any more: all of the instruments is seen
            seen = full.label_map > 0
            np.testing.assert_array_equal(full.label_map[seen], less.label_map[seen])
        else:
            np.testing.assert_array_equal(full.label_map, less.label_map)
    assert changed >= (1 if rare else 4)


@pytest.mark.parametrize("kind", ["human", "animal", "phantom"])
def test_without_anatomy_there_are_no_edges(kind: str) -> None:
    plain = IngredientSettings(anatomy=False, vessels=False)
    for seed in range(4):
        image = background(np.random.default_rng(seed), kind, SIDE, SIDE / 512, plain)
        assert np.abs(np.diff(image, axis=0)).max() < 0.1


def test_without_foreign_bodies_the_rest_of_the_body_is_the_same() -> None:
    none = IngredientSettings(foreign_bodies=False)
    differing = 0
    for seed in range(12):
        images = [
            background(np.random.default_rng(seed), "human", SIDE, SIDE / 512, ingredients)
            for ingredients in (None, none)
        ]
        share = np.mean(np.abs(images[0] - images[1]) > 1e-6)
        differing += share > 0
        assert share < 0.9
    assert differing >= 2


def test_the_detector_without_flaws_shows_a_flat_scene_flat() -> None:
    chosen = without("detector", "native_sizes", "console")
    scene = random_scene(np.random.default_rng(4), chosen, "human")
    assert scene.field is None
    assert scene.console_seed is None
    assert scene.detector.native_size is None
    assert scene.detector.electronic_noise == scene.detector.blur_px == 0
    assert (
        scene.detector.gamma
        == random_scene(np.random.default_rng(4), without(), "human").detector.gamma
    )


def test_a_sequence_has_no_bolus_without_vessels() -> None:
    seeds = range(6)
    assert any(random_insertion(s, 4, without(), "human").vessels is not None for s in seeds)
    assert all(random_insertion(s, 4, without("vessels"), "human").vessels is None for s in seeds)
