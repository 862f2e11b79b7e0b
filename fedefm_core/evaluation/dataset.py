# SPDX-License-Identifier: Apache-2.0
"""Run perception over a set of images with masks and report its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedefm_core.errors import TruthError
from fedefm_core.evaluation.evaluate import (
    EvaluationSettings,
    FrameScore,
    frame_row,
    score_frame,
    summarise,
)
from fedefm_core.evaluation.frame_names import NamedFrame
from fedefm_core.evaluation.truth import (
    TRUTH_FILE,
    FrameTruth,
    find_truth,
    read_mask,
    read_truth,
)
from fedefm_core.frames import Frame
from fedefm_core.perception import Instrument, Segmenter, find_instruments
from fedefm_core.perception.preprocess import preprocess
from fedefm_core.perception.types import FloatArray, LabelMap
from fedefm_core.provenance import provenance


@dataclass(frozen=True)
class GroundTruth:
    """masks: folder of NAME.png. truth: by frame name, from truth_file; None without one."""

    masks: Path
    truth_file: Path | None = None
    truth: Mapping[str, FrameTruth] | None = None

    def of(self, name: str) -> FrameTruth | None:
        """Truth of a frame, None without a truth file. Raises TruthError when it is left out."""
        if self.truth is None:
            return None
        if name not in self.truth:
            raise TruthError(f"{self.truth_file} says nothing of the frame '{name}'")
        return self.truth[name]


def open_ground_truth(masks: Path, truth_file: Path | None = None) -> GroundTruth:
    """Masks of a folder, with the tips of truth_file or else of a truth.json beside the folder.

    Raises TruthError when the folder is missing or the truth file is not what it should be.
    """
    if not masks.is_dir():
        raise TruthError(f"The folder of masks {masks} does not exist or is a file")
    path = truth_file or find_truth(masks)
    return GroundTruth(masks, path, None if path is None else read_truth(path))


def score_frames(
    frames: Iterable[NamedFrame],
    segmenter: Segmenter,
    ground_truth: GroundTruth,
    settings: EvaluationSettings,
) -> Iterator[FrameScore]:
    """Score each frame on its own. Raises TruthError for a mask or truth that does not fit."""
    for named in frames:
        height, width = named.frame.pixels.shape
        mask = read_mask(ground_truth.masks, named.name, (height, width))
        truth = ground_truth.of(named.name)
        seen = look(segmenter, named.frame)
        yield score_frame(
            named.name,
            seen.label_map,
            seen.instruments,
            mask,
            truth,
            settings,
            seen.probability,
            mm_per_px(named.frame),
        )


@dataclass(frozen=True)
class Seen:
    """One frame through network and instruments, without the tracker; probability: (H, W), 0 to 1,
    that 'an instrument' or 'none' is right, as label_map (H, W) has it."""

    label_map: LabelMap
    probability: FloatArray
    instruments: tuple[Instrument, ...]


def look(segmenter: Segmenter, frame: Frame) -> Seen:
    """What the model makes of this frame alone, in the frame's own pixels."""
    image, box = preprocess(frame, segmenter.runtime.metadata.input_size)
    output = segmenter.runtime.infer(image)
    instruments = find_instruments(output, box, segmenter.settings.instruments)
    probability = box.label_map_to_input(output.probability).astype(np.float64) / 255
    return Seen(box.label_map_to_input(output.label_map), probability, instruments)


def mm_per_px(frame: Frame) -> float | None:
    """Mean of the spacings of rows and columns: at the patient where calibrated, else at the
    detector; None where the file says neither."""
    spacing = frame.spacing.pixel_spacing_mm or frame.spacing.imager_pixel_spacing_mm
    return None if spacing is None else (spacing[0] + spacing[1]) / 2


def evaluation_report(
    scores: Sequence[FrameScore],
    segmenter: Segmenter,
    ground_truth: GroundTruth,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """Metrics, where they come from, and every frame's own; plain JSON. See docs/metrics.md."""
    metadata = segmenter.runtime.metadata
    scored = {score.name for score in scores}
    no_tips = None
    if ground_truth.truth is None:
        no_tips = f"no {TRUTH_FILE} beside the masks, none was named"
    return {
        "model": {
            "name": metadata.name,
            "precision": metadata.precision,
            "weights_sha256": metadata.weights_sha256,
            "runtime": segmenter.runtime.name,
        },
        "groups": summarise(scores, settings),
        "no_tips_because": no_tips,
        "masks_without_image": sorted(
            path.name for path in ground_truth.masks.glob("*.png") if path.stem not in scored
        ),
        "perception_settings": segmenter.settings.model_dump(mode="json"),
        "provenance": provenance(settings),
        "frames": [frame_row(score) for score in scores],
    }
