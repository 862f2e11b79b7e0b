# SPDX-License-Identifier: Apache-2.0
"""Train a segmenter from the simulator stream: steps, validation, checkpoints, resume."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.metrics import DiceMetric
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from fedefm_core.config import load_settings, save_settings, settings_sha256
from fedefm_core.errors import ConfigError, OutputError
from fedefm_core.finetuning import checkpoint
from fedefm_core.finetuning.data import (
    PoolSampler,
    PoolStream,
    Sample,
    SimulatorStream,
    worker_init,
)
from fedefm_core.finetuning.init_table import init_table
from fedefm_core.finetuning.losses import SegmentationLoss
from fedefm_core.finetuning.settings import FinetuneSettings
from fedefm_core.networks import build_network, save_weights
from fedefm_core.networks.initialise import initialise
from fedefm_core.networks.segmentation import STRIDE, decide, normalise
from fedefm_core.perception.types import INSTRUMENT_KINDS, UNKNOWN
from fedefm_core.provenance import provenance
from fedefm_core.simulation.dataset import DatasetPlan, write_dataset

POOL = "pool"  # folder of a run: frames drawn ahead
TIP_HIT_PX = 6.0  # a heat map's peak this near a true tip counts as a hit in 'tip_score'


@dataclass
class Trainer:
    """Everything that a step changes."""

    settings: FinetuneSettings
    network: nn.Module
    average: AveragedModel
    optimiser: torch.optim.AdamW
    loss: SegmentationLoss


def finetune(settings: FinetuneSettings, run_dir: Path, resume: bool = False) -> Path:
    """Train into run_dir and return the path of the best weights.

    Writes config.yaml, provenance.json, metrics.jsonl, tensorboard/, state.safetensors (for
    resuming), last.safetensors and best.safetensors (averaged weights). An interrupt ends the run
    after the step that it came in, whose state is saved; with resume it goes on, bit for bit.
    Raises OutputError when run_dir holds a run and resume was not asked for, ConfigError when
    sizes do not fit each other or the settings of the run to be resumed differ, WeightsError when
    its state, or the weights to start from, do not fit.
    """
    _check_sizes(settings)
    trainer = _build(settings, tell=not resume)
    _open_run(settings, run_dir, resume)
    _draw_pool(settings, run_dir)
    state_path = run_dir / "state.safetensors"
    progress = checkpoint.Progress()
    if resume and state_path.exists():
        progress = checkpoint.load_state(
            state_path, trainer.network, trainer.average, trainer.optimiser
        )
    _forget_after(run_dir, progress.step)
    writer = SummaryWriter(run_dir / "tensorboard", purge_step=progress.step or None)
    validation = _validation_batches(settings)
    with closing(writer), _interrupts_held() as interrupted:
        for losses in _train(trainer, run_dir, progress):
            _log(run_dir, writer, progress.step, "train", losses)
            if progress.step % settings.validation.every_steps == 0 or _done(settings, progress):
                scores = evaluate(
                    trainer.average,
                    validation,
                    settings.precision,
                    settings.loss.tip_sigma_cells,
                )
                _log(run_dir, writer, progress.step, "validation", scores)
                _keep_best(trainer, run_dir, progress, scores)
            due = progress.step % settings.save_every_steps == 0 or _done(settings, progress)
            if due or interrupted():
                _save(trainer, run_dir, progress)
            if interrupted():
                raise KeyboardInterrupt
    return run_dir / "best.safetensors"


def learning_rate(settings: FinetuneSettings, step: int) -> float:
    """Of 0-based step: linear warm-up, then half cosines to zero at each restart and the end."""
    o = settings.optimiser
    if step < o.warmup_steps:
        return o.learning_rate * (step + 1) / o.warmup_steps
    begin = max([o.warmup_steps, *(restart for restart in o.restarts if restart <= step)])
    end = min([settings.steps, *(restart for restart in o.restarts if restart > step)])
    fraction = (step - begin) / max(end - begin, 1)
    return o.learning_rate * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))


def evaluate(
    network: nn.Module, batches: list[Sample], precision: str, sigma_cells: float
) -> dict[str, float]:
    """Mean Dice by class over frames that hold or predict it, and the share of tips found."""
    network.eval()
    metric = DiceMetric(include_background=False, num_classes=3, ignore_empty=True)
    hits: list[bool] = []
    with torch.inference_mode():
        for batch in batches:
            classes, tips = _forward(network, batch.image, precision)
            labels, _ = decide(*classes.float().chunk(3, dim=1))
            known = batch.labels != UNKNOWN
            metric(y_pred=labels * known, y=batch.labels * known)
            hits += _tip_hits(tips, batch.tips, sigma_cells)
    per_class = torch.nanmean(metric.get_buffer(), dim=0)
    scores = {f"dice_{k}": float(v) for k, v in zip(INSTRUMENT_KINDS, per_class, strict=True)}
    scores["dice_mean"] = float(per_class.mean())
    scores["tip_score"] = float(np.mean(hits)) if hits else 0.0
    return scores


@contextmanager
def _interrupts_held() -> Iterator[Callable[[], bool]]:
    """Ctrl-C only noted, because half a step cannot be resumed; a second one interrupts at once.

    Yields what tells whether there was one. In threads, which get no signals, it changes nothing.
    """
    noted: list[int] = []

    def note(number: int, _: object) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)


def _check_sizes(settings: FinetuneSettings) -> None:
    """Raise ConfigError now rather than at the first batch that does not fit."""
    size, crop = settings.simulation.size, settings.crop
    step = settings.network.size_multiple
    sides = {"simulation.size": size} | ({"crop": crop} if settings.pool_frames else {})
    for name, side in sides.items():
        if side % step:
            raise ConfigError(
                f"'{name}' must be a multiple of {step} for this {settings.architecture} "
                f"(got {side})"
            )
    if settings.pool_frames and crop > size:
        raise ConfigError(f"'crop' must be at most 'simulation.size', {size} (got {crop})")


def _build(settings: FinetuneSettings, tell: bool) -> Trainer:
    """tell: print what the network takes from settings.init."""
    torch.manual_seed(settings.seed)
    network = build_network(settings.network_name, settings.network.model_dump())
    if settings.init is not None:
        found = initialise(network, settings.network_name, settings.init)
        if tell:
            Console().print(init_table(found))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decay = settings.optimiser.average_decay
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=settings.optimiser.learning_rate,
        weight_decay=settings.optimiser.weight_decay,
    )
    return Trainer(settings, network, average, optimiser, SegmentationLoss(settings.loss))


def _train(
    trainer: Trainer, run_dir: Path, progress: checkpoint.Progress
) -> Iterator[dict[str, float]]:
    """Run the remaining steps, counting progress.step up, and yield the losses of each."""
    settings = trainer.settings
    with _bar() as bar:
        task = bar.add_task("fine-tuning", total=settings.steps, completed=progress.step)
        for batch in _training_loader(settings, run_dir, progress.step):
            trainer.network.train()
            losses = _step(trainer, batch, progress.step)
            progress.step += 1
            bar.update(task, advance=1, description=f"loss {losses['total']:.3f}")
            yield losses


def _step(trainer: Trainer, batch: Sample, step: int) -> dict[str, float]:
    settings = trainer.settings
    for group in trainer.optimiser.param_groups:
        group["lr"] = learning_rate(settings, step)
    logits = _forward(trainer.network, batch.image, settings.precision)
    parts = trainer.loss(logits, batch, step)
    trainer.optimiser.zero_grad(set_to_none=True)
    parts["total"].backward()
    nn.utils.clip_grad_norm_(
        trainer.network.parameters(), settings.optimiser.max_gradient_norm, error_if_nonfinite=True
    )
    trainer.optimiser.step()
    trainer.average.update_parameters(trainer.network)
    return {name: float(value.detach()) for name, value in parts.items()}


def _forward(network: nn.Module, image: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    x = normalise(image).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        classes, tips = network(x)
    return classes, tips


def _draw_pool(settings: FinetuneSettings, run_dir: Path) -> None:
    """Draw the frames to train on, or what is missing of them after an interrupt."""
    if settings.pool_frames == 0:
        return
    plan = DatasetPlan(settings.seed, settings.pool_frames, settings.simulation)
    with _bar() as bar:
        task = bar.add_task("drawing the pool", total=settings.pool_frames)
        for _ in write_dataset(plan, run_dir / POOL, max(settings.workers, 1)):
            bar.update(task, advance=1)


def _training_loader(
    settings: FinetuneSettings, run_dir: Path, first_step: int
) -> DataLoader[Sample]:
    # A forked child can inherit a lock that one of OpenCV's or torch's threads holds.
    context = "spawn" if settings.workers else None
    if settings.pool_frames:
        return DataLoader(
            PoolStream(run_dir / POOL, settings),
            batch_sampler=PoolSampler(settings, first_step),
            num_workers=settings.workers,
            worker_init_fn=worker_init,
            multiprocessing_context=context,
        )
    stream = SimulatorStream(
        settings.seed,
        settings.steps * settings.batch_size,
        settings.simulation,
        settings.augmentation,
        settings.loss.tip_sigma_cells,
    )
    remaining = range(first_step * settings.batch_size, len(stream))
    return DataLoader(
        stream,
        batch_size=settings.batch_size,
        sampler=remaining,
        num_workers=settings.workers,
        worker_init_fn=worker_init,
        multiprocessing_context=context,
    )


def _validation_batches(settings: FinetuneSettings) -> list[Sample]:
    validation = settings.validation
    stream = SimulatorStream(
        validation.seed,
        validation.frames,
        settings.simulation,
        None,
        settings.loss.tip_sigma_cells,
    )
    return list(DataLoader(stream, batch_size=settings.batch_size))


def _tip_hits(logits: Tensor, target: Tensor, sigma_cells: float) -> list[bool]:
    """For each frame and kind that shows a tip: is the heat map's peak near one?"""
    shown = target.amax(dim=(2, 3)) > 0.5
    peaks = logits.flatten(2).argmax(dim=2, keepdim=True)
    # The target is a Gaussian of the distance, so its height at the peak tells the distance.
    near = target.flatten(2).gather(2, peaks)[..., 0]
    floor = math.exp(-0.5 * (TIP_HIT_PX / (sigma_cells * STRIDE)) ** 2)
    return [bool(hit) for hit in (near > floor)[shown]]


def _keep_best(
    trainer: Trainer, run_dir: Path, progress: checkpoint.Progress, scores: dict[str, float]
) -> None:
    _save_average(trainer, run_dir / "last.safetensors", progress.step, scores)
    metric = trainer.settings.validation.metric
    if scores[metric] > progress.best:
        progress.best, progress.best_step = scores[metric], progress.step
        _save_average(trainer, run_dir / "best.safetensors", progress.step, scores)


def _save_average(trainer: Trainer, path: Path, step: int, scores: dict[str, float]) -> None:
    settings = trainer.settings
    header = {
        "architecture": settings.network_name,
        "settings": settings.network.model_dump(mode="json"),
        "training_config_sha256": settings_sha256(settings),
        "step": step,
        "validation": scores,
    }
    save_weights(trainer.average.module, path, header)


def _save(trainer: Trainer, run_dir: Path, progress: checkpoint.Progress) -> None:
    checkpoint.save_state(
        run_dir / "state.safetensors",
        trainer.network,
        trainer.average,
        trainer.optimiser,
        progress,
    )


def _log(
    run_dir: Path, writer: SummaryWriter, step: int, split: str, values: dict[str, float]
) -> None:
    for name, value in values.items():
        writer.add_scalar(f"{split}/{name}", value, step)
    with (run_dir / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps({"step": step, "split": split, **values}) + "\n")


def _forget_after(run_dir: Path, step: int) -> None:
    """Drop what metrics.jsonl says of steps that a killed run took after its last saved state."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(
        "".join(x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= step)
    )


def _open_run(settings: FinetuneSettings, run_dir: Path, resume: bool) -> None:
    config = run_dir / "config.yaml"
    if config.exists() and not resume:
        raise OutputError(f"{run_dir} holds a run already. Resume it or name another folder.")
    if config.exists():
        earlier = load_settings(FinetuneSettings, config)
        if settings_sha256(earlier) != settings_sha256(settings):
            raise ConfigError(
                f"The settings differ from those that the run in {run_dir} began with: "
                f"{', '.join(_differences(earlier, settings))}"
            )
        return
    try:
        save_settings(settings, config)
        record = json.dumps(provenance(settings, settings.seed), indent=2)
        (run_dir / "provenance.json").write_text(record)
    except OSError as error:
        raise OutputError(f"Cannot write to {run_dir}: {error.strerror}") from error


def _differences(earlier: FinetuneSettings, now: FinetuneSettings) -> list[str]:
    before, after = earlier.model_dump(), now.model_dump()
    return [name for name in before if before[name] != after[name]]


def _done(settings: FinetuneSettings, progress: checkpoint.Progress) -> bool:
    return progress.step >= settings.steps


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
