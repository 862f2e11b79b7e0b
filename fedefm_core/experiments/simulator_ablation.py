# SPDX-License-Identifier: Apache-2.0
"""Which ingredient of the simulator is worth how much.

One network is trained with all ingredients and once for each variant, the variant differing in one
ingredient only; each is scored on frames that imitate real ones (exported_frames.py) and on real
frames whose catheters one person marked (real_images.py). The same steps, seeds and rule (the
weights at the end, none chosen) for all.

    OUT/runs/VARIANT/seed_1/    one training; result.json when it is finished and scored
    OUT/exported_frames.png     what the scores are measured on
    OUT/report.json, report.md, differences.png

An interrupted study goes on where it was: finished parts are read, a begun one resumes.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from fedefm_core.config import Settings, load_settings, settings_sha256
from fedefm_core.errors import OutputError
from fedefm_core.evaluation.metrics import bootstrap_interval, nan_mean
from fedefm_core.experiments.ablation_plot import Effect, draw_effects
from fedefm_core.experiments.exported_frames import (
    NETWORK_SIDE,
    ExportedFrame,
    ExportedFramesSettings,
    draw_sheet,
    exported_frames,
    score,
)
from fedefm_core.experiments.parts import PartResult, held_result, keep_result, progress_line
from fedefm_core.experiments.real_images import RealImagesSettings, marked_catheters
from fedefm_core.experiments.study import Result, Rows
from fedefm_core.export.parity import Infer, torch_reference
from fedefm_core.finetuning import FinetuneSettings, finetune
from fedefm_core.frames import Frame
from fedefm_core.networks import load_network
from fedefm_core.perception.preprocess import preprocess
from fedefm_core.perception.types import LabelMap
from fedefm_core.provenance import provenance

FloatArray = npt.NDArray[np.float64]
Key = tuple[str, int]  # of a part: name of its variant, seed
_SHEET_FRAMES = 12
_RESAMPLES = 2000


class VariantSettings(Settings):
    """name: of its folder. title: in tables. set: overrides of the base, as 'finetune --set'."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    set: tuple[str, ...] = ()


class SimulatorAblationSettings(Settings):
    """base: files of a finetune run, later ones adding to earlier. set: overrides for all of the
    study, its budget. variants: the first is what the others are compared with. real_images: a
    configuration of that study, whose marked catheters are scored too."""

    study: Literal["simulator_ablation"] = "simulator_ablation"
    base: tuple[Path, ...]
    set: tuple[str, ...] = ()
    variants: tuple[VariantSettings, ...] = Field(min_length=2)
    seeds: tuple[int, ...] = Field(default=(1, 2), min_length=1)
    validation: ExportedFramesSettings = ExportedFramesSettings()
    real_images: Path | None = None

    @field_validator("variants")
    @classmethod
    def _names_differ(cls, variants: tuple[VariantSettings, ...]) -> tuple[VariantSettings, ...]:
        names = [variant.name for variant in variants]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each variant needs a name of its own (twice: {', '.join(twice)})")
        return variants


@dataclass(frozen=True)
class Part:
    """One training of the study."""

    variant: VariantSettings
    seed: int
    settings: FinetuneSettings

    @property
    def key(self) -> Key:
        return self.variant.name, self.seed

    @property
    def folder(self) -> Path:
        """Below the study's folder."""
        return Path("runs") / self.variant.name / f"seed_{self.seed}"


@dataclass(frozen=True)
class AblationResult(PartResult):
    """f1, dice: by kind of frame, a value a frame, None where undefined. marked: F1 by real
    frame."""

    f1: dict[str, list[float | None]]
    dice: dict[str, list[float | None]]
    marked: dict[str, float]


def simulator_ablation(
    settings: SimulatorAblationSettings, out: Path, tell: Callable[[str], None]
) -> Result:
    """Train and score what is missing, then report; tell gets a line a part, with the time left.

    Raises ConfigError when a variant's settings are wrong, before anything is drawn; OutputError
    when out holds parts of another study; SimulationError or FrameError for missing images.
    """
    parts = plan(settings)
    results = {
        part.key: held
        for part in parts
        if (held := held_result(AblationResult, out / part.folder, _part_sha256(part, settings)))
    }
    missing = [part for part in parts if part.key not in results]
    if missing:
        frames = _validation_frames(settings, out)
        real = _real_images(settings)
        for number, part in enumerate(missing):
            name, left = f"{part.variant.title}, seed {part.seed}", len(missing) - number
            tell(progress_line(name, len(parts), left, list(results.values())))
            results[part.key] = _run(part, settings, frames, real, out)
    return report(settings, results, out)


def plan(settings: SimulatorAblationSettings) -> list[Part]:
    """All trainings, seed by seed, so that an early end leaves whole comparisons."""
    return [
        Part(variant, seed, _finetune_settings(settings, variant, seed))
        for seed in settings.seeds
        for variant in settings.variants
    ]


def label_map_of(infer: Infer, frame: Frame) -> LabelMap:
    """(H, W) uint8 in the frame's size, as 'predict' gives it."""
    image, box = preprocess(frame, (NETWORK_SIDE, NETWORK_SIDE))
    return box.label_map_to_input(infer(image).label_map)


def report(
    settings: SimulatorAblationSettings, results: Mapping[Key, AblationResult], out: Path
) -> Result:
    """Tables and plot of the finished parts; a variant without any says so."""
    reference, *others = settings.variants
    rows = {
        variant.name: _summary(variant, _pairs(settings.seeds, results, variant, reference))
        for variant in settings.variants
    }
    pictures = {}
    effects = [effect for v in others if (effect := _effect(v, rows[v.name])) is not None]
    if effects:
        draw_effects(effects, reference.title, out / "differences.png")
        pictures["What leaving an ingredient out costs"] = out / "differences.png"
    if (out / "exported_frames.png").is_file():
        pictures["Frames that the scores are measured on"] = out / "exported_frames.png"
    return Result(
        report={
            "study": settings.study,
            "parts": len(settings.variants) * len(settings.seeds),
            "finished": len(results),
            "seconds": sum(result.seconds for result in results.values()),
            "variants": rows,
            "provenance": provenance(settings),
        },
        title="Which ingredient of the simulator is worth how much",
        text=_text(settings, len(results)),
        tables={
            "Centerline F1 and Dice of the foreground, in points of 100; differences from the "
            "first row with 95 % intervals": table(settings, rows)
        },
        pictures=pictures,
    )


def table(settings: SimulatorAblationSettings, rows: Mapping[str, Any]) -> Rows:
    """Header first; a variant a row, differences in points of 100."""
    header = ("with", "seeds", "F1", "difference", "by seed", "Dice", "difference")
    body: list[tuple[str, ...]] = []
    for variant in settings.variants:
        row = rows[variant.name]
        f1, dice, marked = (_cells(row[metric]) for metric in ("f1", "dice", "marked"))
        if variant == settings.variants[0]:  # differs from itself by nothing
            f1, dice, marked = ((mean, "", "") for mean, _, _ in (f1, dice, marked))
        body.append((variant.title, str(row["seeds"]), *f1, *dice[:2], *marked[:2]))
    return [(*header, "real F1", "difference"), *body]


def _finetune_settings(
    settings: SimulatorAblationSettings, variant: VariantSettings, seed: int
) -> FinetuneSettings:
    overrides = [*settings.set, *variant.set, f"seed={seed}"]
    return load_settings(FinetuneSettings, settings.base, overrides)


def _validation_frames(settings: SimulatorAblationSettings, out: Path) -> list[ExportedFrame]:
    frames = list(exported_frames(settings.validation))
    sheet = draw_sheet(list(islice(frames, _SHEET_FRAMES)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "exported_frames.png").write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
    except OSError as error:
        raise OutputError(f"Cannot write to {out}: {error.strerror}") from error
    return frames


def _real_images(settings: SimulatorAblationSettings) -> RealImagesSettings | None:
    if settings.real_images is None:
        return None
    return load_settings(RealImagesSettings, settings.real_images)


def _run(
    part: Part,
    settings: SimulatorAblationSettings,
    frames: Sequence[ExportedFrame],
    real: RealImagesSettings | None,
    out: Path,
) -> AblationResult:
    started = time.monotonic()
    folder = out / part.folder
    finetune(part.settings, folder, resume=True)
    infer = torch_reference(load_network(folder / "last.safetensors"))
    f1: dict[str, list[float | None]] = {kind: [] for kind in settings.validation.kinds}
    dice: dict[str, list[float | None]] = {kind: [] for kind in settings.validation.kinds}
    for frame in frames:
        seen = label_map_of(infer, frame.frame) > 0
        scored = score(seen, frame, settings.validation.tolerance_px)
        f1[frame.kind].append(_number(scored.f1))
        dice[frame.kind].append(_number(scored.dice))
    marked = marked_catheters(real, lambda frame: label_map_of(infer, frame)) if real else {}
    result = AblationResult(
        sha256=_part_sha256(part, settings),
        seconds=time.monotonic() - started,
        f1=f1,
        dice=dice,
        marked={name: row["f1"] for name, row in marked.items()},
    )
    keep_result(result, folder)
    return result


def _part_sha256(part: Part, settings: SimulatorAblationSettings) -> str:
    all_settings = [part.settings, settings.validation, _real_images(settings)]
    hashes = [settings_sha256(each) for each in all_settings if each is not None]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _pairs(
    seeds: Sequence[int],
    results: Mapping[Key, AblationResult],
    variant: VariantSettings,
    reference: VariantSettings,
) -> list[tuple[AblationResult, AblationResult]]:
    """The variant's and the reference's results of each seed that has both."""
    keys = [((variant.name, seed), (reference.name, seed)) for seed in seeds]
    return [(results[a], results[b]) for a, b in keys if a in results and b in results]


def _summary(
    variant: VariantSettings, pairs: Sequence[tuple[AblationResult, AblationResult]]
) -> dict[str, Any]:
    row: dict[str, Any] = {"title": variant.title, "seeds": len(pairs), "set": list(variant.set)}
    for metric in ("f1", "dice"):
        row[metric] = _estimate([(_frames(o, metric), _frames(b, metric)) for o, b in pairs])
        row[metric]["by_kind"] = {
            kind: _number(np.mean([nan_mean(_frames(own, metric)[:, i]) for own, _ in pairs]))
            for i, kind in enumerate(pairs[0][0].f1 if pairs else ())
        }
    row["marked"] = _estimate([(_marked(o), _marked(b)) for o, b in pairs if o.marked])
    return row


def _frames(result: AblationResult, metric: str) -> FloatArray:
    """(frames, kinds) of one metric."""
    by_kind = result.f1 if metric == "f1" else result.dice
    frames: FloatArray = np.array(list(by_kind.values()), np.float64).T
    return frames


def _marked(result: AblationResult) -> FloatArray:
    """(frames, 1) F1 of marked catheters."""
    return np.reshape(np.array(list(result.marked.values()), np.float64), (-1, 1))


def _estimate(pairs: Sequence[tuple[FloatArray, FloatArray]]) -> dict[str, Any]:
    """Mean of own, difference from base and its 95 % interval over frames, difference by seed.

    pairs: by seed, (frames, kinds) of own and of base, on the same frames. The interval is of
    seeds' mean differences, frames drawn with replacement: it does not know of other seeds.
    """
    if not pairs:
        return {"mean": None, "difference": None, "interval": None, "by_seed": []}
    differences = [own - base for own, base in pairs]
    together = np.mean(differences, axis=0)
    interval = bootstrap_interval(_mean_of_kinds, together, seed=0, resamples=_RESAMPLES)
    return {
        "mean": _number(np.mean([_mean_of_kinds(own) for own, _ in pairs])),
        "difference": _number(np.mean([_mean_of_kinds(d) for d in differences])),
        "interval": interval,
        "by_seed": [_number(_mean_of_kinds(d)) for d in differences],
    }


def _mean_of_kinds(frames: FloatArray) -> FloatArray:
    """(..., frames, kinds) to (...): frames without a value left out, kinds counting alike."""
    return np.asarray(nan_mean(np.swapaxes(frames, -1, -2)).mean(-1))


def _number(value: Any) -> float | None:
    """For JSON, which has no NaN."""
    number = float(value)
    return number if math.isfinite(number) else None


def _effect(variant: VariantSettings, row: Mapping[str, Any]) -> Effect | None:
    if row["f1"]["difference"] is None:
        return None
    real = row["marked"] if row["marked"]["difference"] is not None else None
    return Effect(variant.title, row["f1"], real)


def _cells(estimate: Mapping[str, Any]) -> tuple[str, str, str]:
    """Mean, difference with its interval, differences by seed; in points of 100."""
    if estimate["difference"] is None:
        return "-", "-", "-"
    difference = f"{100 * estimate['difference']:+.1f}"
    if estimate["interval"] is not None:
        low, high = (100 * bound for bound in estimate["interval"])
        difference += f" [{low:+.1f} {high:+.1f}]"
    by_seed = (f"{100 * seed:+.1f}" for seed in estimate["by_seed"] if seed is not None)
    return f"{100 * estimate['mean']:.1f}", difference, " / ".join(by_seed)


def _backgrounds(settings: SimulatorAblationSettings) -> str:
    sources = settings.validation.simulation.backgrounds
    names = [f"{source.path} ({source.pattern}, {source.kind})" for source in sources]
    return f"real frames of {', '.join(names)}, and on procedural " if names else "procedural "


def _text(settings: SimulatorAblationSettings, finished: int) -> str:
    first = _finetune_settings(settings, settings.variants[0], settings.seeds[0])
    validation = settings.validation
    parts = len(settings.variants) * len(settings.seeds)
    low, high = validation.side_px
    marked = (
        " Real: catheters that one person marked on frames that no training saw with labels, F1 "
        "at the same tolerance."
        if settings.real_images
        else ""
    )
    return f"""\
{finished} of {parts} parts are finished: {len(settings.variants)} variants, seeds \
{", ".join(map(str, settings.seeds))}. Each trains {first.architecture} ({first.network}) for \
{first.steps} steps of {first.batch_size} crops of {first.crop} pixels from a pool of \
{first.pool_frames} frames, and is scored with its last weights: nothing is chosen. A variant \
leaves out one ingredient; everything else of a frame stays as it is.

**Measured on** {validation.frames} frames each of {", ".join(validation.kinds)}, which imitate \
real ones with masks: simulated instruments on {_backgrounds(settings)}scenes of a seed of their \
own; cut to aspects down to {validation.aspect:g}, brought to {low} to {high} pixels, JPEG \
quality {validation.jpeg_quality[0]} to {validation.jpeg_quality[1]}; axes drawn \
{validation.stroke_px[0]} to {validation.stroke_px[1]} pixels wide. Dark lines of the real frames \
that nobody marked count neither way. F1: of the foreground's centerline at \
{validation.tolerance_px:g} px (image brought to {NETWORK_SIDE}), mean over frames, then over \
kinds; Dice likewise.{marked}

**How far to trust it.** The frames come from the same simulator, so an ingredient that real \
images do not have would look useful here too; real backgrounds and the marked catheters guard \
against that only in part. Networks are small and trained briefly. Intervals resample frames, not \
trainings: what another seed would change shows in the differences by seed."""
