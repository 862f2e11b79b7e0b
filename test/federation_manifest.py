# SPDX-License-Identifier: Apache-2.0
"""Tiny images of three kinds, and settings of a pretraining on them that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fedefm_core.config import parse_settings
from fedefm_core.federation.settings import PretrainSettings

IMAGES, SIDE = 14, 16
KINDS = ("dots", "bars", "waves")


def write_manifest(root: Path) -> Path:
    """Three kinds of image in the layout of CHASE_DB1, in three silos."""
    rng = np.random.default_rng(0)
    lines = [f"size: {SIDE}", "cache: cache", "corpora:"]
    for number, name in enumerate(KINDS):
        folder = root / name
        folder.mkdir()
        for index in range(1, IMAGES + 1):
            picture = rng.integers(0, 60, (SIDE, SIDE), dtype=np.uint8)
            picture[:: number + 2, :: 1 + number % 2] += 150
            stem = folder / f"Image_{index:02d}L"
            cv2.imwrite(f"{stem}.jpg", picture)
            cv2.imwrite(f"{stem}_1stHO.png", (picture > 100).astype(np.uint8) * 255)
        lines.append(f"  {name}: {{adapter: chase_db1, path: {name}}}")
    path = root / "corpora.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def settings_for(manifest: Path, **changes: Any) -> PretrainSettings:
    """Three rounds of mfd on a network of a few hundred parameters."""
    values: dict[str, Any] = {
        "model": {"channels": [4, 4, 8]},
        "corpora": {"manifest": str(manifest)},
        "algorithm": {"name": "mfd", "split": False, "home_training": True, "distil_steps": 1},
        "rounds": 3,
        "local_steps": 2,
        "training": {"batch_size": 4, "optimiser": {"keep_state": True}},
        "prototypes": {"weight": 0.5, "samples": 4},
        "evaluation": {"split": "test"},
        "tensorboard": False,
        **changes,
    }
    return parse_settings(PretrainSettings, values)
