# SPDX-License-Identifier: Apache-2.0
"""What a model does on real images that nobody labelled for it.

Three questions, none of which needs a mask: how much does it call an instrument where there is
none, how much of labelled vessels does it take for one, and does it follow the few catheters whose
axes were marked by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedefm_core.config import Settings
from fedefm_core.errors import FrameError
from fedefm_core.evaluation.evaluate import skeleton
from fedefm_core.evaluation.metrics import widen
from fedefm_core.experiments.study import Result
from fedefm_core.frames import Frame, open_source, to_grey8
from fedefm_core.frames.source import image_files
from fedefm_core.perception import Perception, Segmenter
from fedefm_core.perception.overlay import draw_overlay
from fedefm_core.perception.types import LabelMap
from fedefm_core.provenance import provenance
from fedefm_core.simulation.backgrounds import inside_polygons
from fedefm_core.simulation.detector import display, expose, random_detector
from fedefm_core.simulation.outlines import spline
from fedefm_core.simulation.projection import crop_view, load_views

BoolArray = npt.NDArray[np.bool_]
_SIDE = 512  # of a projection


class NegativeSettings(Settings):
    """Images without instruments. medium: 'volume' is projected from views angles of seed."""

    name: str
    path: Path
    pattern: str = "*"
    medium: Literal["picture", "volume"] = "picture"
    views: int = Field(24, ge=1)
    seed: int = 424_242
    every: int = Field(1, ge=1)


class VesselSettings(Settings):
    """Angiograms with polygons of vessels, as BackgroundSettings has them."""

    path: Path
    polygons: Path
    pattern: str = "*"


class CatheterSettings(Settings):
    """Axes marked by hand: by image, polylines of x, y in pixels. uncertain: lines that may or
    may not be instruments, which count neither way."""

    file: Path
    frame: int = Field(0, ge=0)
    lines: tuple[tuple[tuple[float, float], ...], ...]
    uncertain: tuple[tuple[tuple[float, float], ...], ...] = ()


class RealImagesSettings(Settings):
    """root: folder that all paths are relative to. tolerance_px: of the axes, at 512 x 512."""

    study: Literal["real_images"] = "real_images"
    root: Path = Path()
    negatives: tuple[NegativeSettings, ...] = ()
    vessels: VesselSettings | None = None
    catheters: tuple[CatheterSettings, ...] = ()
    tolerance_px: float = Field(5.0, gt=0)


@dataclass(frozen=True)
class Share:
    """Pixels called an instrument, of those looked at; tips found; frames."""

    called: int
    pixels: int
    tips: int
    frames: int

    def to_dict(self) -> dict[str, float]:
        """Plain JSON, with the quotient."""
        share = self.called / self.pixels if self.pixels else float("nan")
        return {"share": share, "tips": self.tips, "frames": self.frames}


def real_images(settings: RealImagesSettings, segmenter: Segmenter, out: Path) -> dict[str, Any]:
    """Run the study; writes overlays of every marked frame and of the worst negatives to out.

    Raises FrameError when a source is missing, so that nothing is left out silently.
    """
    out.mkdir(parents=True, exist_ok=True)
    negatives = {
        source.name: _false_share(_negative_frames(source, settings.root), segmenter, out, source)
        for source in settings.negatives
    }
    report: dict[str, Any] = {"negatives": {n: s.to_dict() for n, s in negatives.items()}}
    if settings.vessels is not None:
        report["vessels"] = _vessel_share(settings.vessels, settings.root, segmenter).to_dict()
    if settings.catheters:
        report["catheters"] = _catheters(settings, segmenter, out)
    return report


def line_scores(
    predicted: BoolArray, true: BoolArray, uncertain: BoolArray, tolerance_px: float
) -> dict[str, float]:
    """Precision, recall and F1 of a mask's skeleton against marked axes, all (H, W) bool.

    precision: share of the skeleton within tolerance of an axis, less what lies on uncertain
    lines. recall: share of the axes within tolerance of the skeleton.
    """
    found = skeleton(predicted)
    counted = found & ~widen(uncertain, tolerance_px + 3)
    precision = _ratio(counted & widen(true, tolerance_px), counted)
    recall = _ratio(true & widen(found, tolerance_px), true)
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def draw_lines(
    lines: Sequence[Sequence[tuple[float, float]]], shape: tuple[int, ...]
) -> BoolArray:
    """(H, W) bool: smooth curves through the points, one pixel wide."""
    canvas = np.zeros(shape[:2], np.uint8)
    for line in lines:
        points = np.round(spline(line, samples=20)).astype(np.int32)
        cv2.polylines(canvas, [points], False, 1, 1)
    return canvas > 0


def _ratio(part: BoolArray, whole: BoolArray) -> float:
    total = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / total if total else 0.0


def _alone(segmenter: Segmenter, frame: Frame) -> Perception:
    segmenter.reset()
    return segmenter.process(frame)


def _false_share(
    frames: Iterable[Frame], segmenter: Segmenter, out: Path, source: NegativeSettings
) -> Share:
    called = pixels = tips = count = 0
    worst = 0
    for frame in frames:
        seen = _alone(segmenter, frame)
        wrong = int(np.count_nonzero(seen.label_map))
        called, pixels, count = called + wrong, pixels + seen.label_map.size, count + 1
        tips += sum(instrument.tip_px is not None for instrument in seen.instruments)
        if wrong > worst:
            worst = wrong
            _write(out / f"worst_{source.name}.png", frame, seen)
    if not count:
        raise FrameError(f"{source.path} holds no image that fits '{source.pattern}'")
    return Share(called, pixels, tips, count)


def _negative_frames(source: NegativeSettings, root: Path) -> Iterator[Frame]:
    path = root / source.path
    if source.medium == "volume":
        yield from _projections(path, source)
        return
    index = 0
    for file in _files(path, source.pattern):
        for frame in open_source(file):
            if index % source.every == 0:
                yield frame
            index += 1


def _projections(path: Path, source: NegativeSettings) -> Iterator[Frame]:
    for number, view in enumerate(load_views(path, source.views, source.seed)):
        rng = np.random.default_rng([source.seed, number])
        detector = random_detector(rng, "human")
        picture = display(expose(crop_view(rng, view, _SIDE), detector, rng), detector)
        grey = np.round(255 * picture).astype(np.uint8)
        yield Frame(grey, source=f"{path}, view {number}")


def _vessel_share(settings: VesselSettings, root: Path, segmenter: Segmenter) -> Share:
    called = pixels = tips = count = 0
    for file in _files(root / settings.path, settings.pattern):
        for frame in open_source(file):
            seen = _alone(segmenter, frame)
            vessel = inside_polygons(root / settings.polygons, file.stem, seen.label_map.shape)
            called += int(np.count_nonzero(seen.label_map[vessel]))
            pixels += int(np.count_nonzero(vessel))
            tips += sum(instrument.tip_px is not None for instrument in seen.instruments)
            count += 1
    return Share(called, pixels, tips, count)


def marked_catheters(
    settings: RealImagesSettings, label_map_of: Callable[[Frame], LabelMap]
) -> dict[str, dict[str, float]]:
    """line_scores, by name of the frame, of a model that gives a frame's label map in its size.

    Raises FrameError when a frame is missing.
    """
    rows = {}
    for marked in settings.catheters:
        frame = _frame(settings.root / marked.file, marked.frame)
        rows[_name(marked)] = _line_scores(settings, marked, label_map_of(frame))
    return rows


def _catheters(settings: RealImagesSettings, segmenter: Segmenter, out: Path) -> dict[str, Any]:
    rows = {}
    for marked in settings.catheters:
        frame = _frame(settings.root / marked.file, marked.frame)
        seen = _alone(segmenter, frame)
        rows[_name(marked)] = _line_scores(settings, marked, seen.label_map)
        _write(out / f"{_name(marked)}.png", frame, seen)
    return {"mean": mean_scores(rows), "frames": rows}


def mean_scores(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Precision, recall and F1, each its mean over frames."""
    return {
        key: float(np.mean([row[key] for row in rows.values()]))
        for key in ("precision", "recall", "f1")
    }


def _line_scores(
    settings: RealImagesSettings, marked: CatheterSettings, label_map: LabelMap
) -> dict[str, float]:
    shape = label_map.shape
    return line_scores(
        label_map > 0,
        draw_lines(marked.lines, shape),
        draw_lines(marked.uncertain, shape),
        settings.tolerance_px * max(shape) / _SIDE,
    )


def _name(marked: CatheterSettings) -> str:
    return f"{marked.file.stem}_{marked.frame:04d}"


def _frame(path: Path, index: int) -> Frame:
    for frame in open_source(path):
        if frame.index == index:
            return frame
    raise FrameError(f"{path} has no frame {index}")


def _files(path: Path, pattern: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = [file for file in image_files(path) if file.match(pattern)]
    if not files:
        raise FrameError(f"{path} holds no file that fits '{pattern}'")
    return files


def _write(path: Path, frame: Frame, seen: Perception) -> None:
    cv2.imwrite(str(path), draw_overlay(to_grey8(frame), seen))


def result(settings: RealImagesSettings, segmenter: Segmenter, out: Path) -> Result:
    """real_images, with the model it was run on, as every study hands it back."""
    metadata = segmenter.runtime.metadata
    findings = real_images(settings, segmenter, out)
    report = {
        "study": settings.study,
        **findings,
        "table": table(findings),
        "model": metadata.name,
        "weights_sha256": metadata.weights_sha256,
        "provenance": provenance(settings),
    }
    return Result(
        report=report,
        title="What the model does on real images that nobody labelled for it",
        text=f"Model {metadata.name}, weights {metadata.weights_sha256[:12]}.",
        tables={"Instruments where there are none, and marked catheters": table(report)},
        pictures={path.stem: path for path in sorted(out.glob("*.png"))},
    )


def table(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows for a person: what, share or score, tips, frames."""
    rows: list[tuple[str, ...]] = [("images", "called an instrument", "tips", "frames")]
    shares: list[tuple[str, Mapping[str, Any]]] = list(report["negatives"].items())
    if "vessels" in report:
        shares.append(("labelled vessels", report["vessels"]))
    rows += [(n, f"{100 * s['share']:.3f} %", str(s["tips"]), str(s["frames"])) for n, s in shares]
    if "catheters" in report:
        mean, frames = report["catheters"]["mean"], report["catheters"]["frames"]
        text = (
            f"F1 {mean['f1']:.2f} (precision {mean['precision']:.2f}, recall {mean['recall']:.2f})"
        )
        rows.append(("marked catheters", text, "", str(len(frames))))
    return rows
