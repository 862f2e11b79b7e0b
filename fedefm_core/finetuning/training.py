# SPDX-License-Identifier: Apache-2.0
"""The training of any task: steps, validation, checkpoints, resume."""

from __future__ import annotations

import json
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
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
from torch.utils.tensorboard import SummaryWriter

from fedefm_core.config import load_settings, save_settings, settings_sha256
from fedefm_core.errors import ConfigError, OutputError, WeightsError
from fedefm_core.evaluation.run_records import (
    BEST_WEIGHTS,
    CONFIG_FILE,
    LAST_WEIGHTS,
    METRICS_FILE,
)
from fedefm_core.finetuning import checkpoint
from fedefm_core.finetuning.init_table import init_table
from fedefm_core.finetuning.optimiser import (
    build_optimiser,
    check_freeze,
    freeze,
    learning_rate,
    set_rate,
)
from fedefm_core.finetuning.settings import RunSettings
from fedefm_core.networks import build_network, read_weights_header, save_weights
from fedefm_core.networks.initialise import initialise
from fedefm_core.provenance import provenance

STATE_FILE = "state.safetensors"  # of a run: what a resume needs

Batch = TypeVar("Batch")


class Task(ABC, Generic[Batch]):
    """What is trained, on what, and how it is judged. name: of the task. settings, network_name
    and network_settings decide the network, which train builds and hands to the others."""

    name: ClassVar[str]
    settings: RunSettings
    network_name: str
    network_settings: dict[str, Any]

    @property
    def whole_init(self) -> bool:
        """Must weights of the same architecture fit whole, heads and all?"""
        return True

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError or WeightsError for what can be told before anything is written."""

    @abstractmethod
    def prepare(self, run_dir: Path) -> None:
        """Bring the data to run_dir, or what is missing of them after an interrupt."""

    @abstractmethod
    def batches(self, run_dir: Path, first_step: int) -> Iterable[Batch]:
        """Training batches from first_step on, optimiser.accumulate of them for each step."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """Parts of the loss, for the log, and 'total'."""

    @abstractmethod
    def open_validation(self, run_dir: Path) -> Callable[[nn.Module], dict[str, float]]:
        """A function that scores a network, the named metric among the scores."""

    def header(self) -> dict[str, Any]:
        """What the weights file says beside architecture, settings and scores."""
        return {"task": self.name}


@dataclass
class Trainer:
    """Everything that a step changes."""

    task: Task[Any]
    network: nn.Module
    average: AveragedModel
    optimiser: torch.optim.AdamW

    @property
    def settings(self) -> RunSettings:
        return self.task.settings


def train(task: Task[Any], run_dir: Path, resume: bool = False) -> Path:
    """Train into run_dir and return the path of the best weights.

    Writes config.yaml, provenance.json, metrics.jsonl, tensorboard/, state.safetensors (for
    resuming), last.safetensors and best.safetensors (averaged weights). An interrupt ends the run
    after the step that it came in, whose state is saved; with resume it goes on, bit for bit.
    Raises OutputError when run_dir holds a run and resume was not asked for, ConfigError when
    settings do not fit each other or those of the run to be resumed differ, WeightsError when
    its state, or the weights to start from, do not fit.
    """
    task.check()
    trainer = _build(task, tell=not resume)
    _open_run(task.settings, run_dir, resume)
    task.prepare(run_dir)
    state_path = run_dir / STATE_FILE
    progress = checkpoint.Progress()
    if resume and state_path.exists():
        progress = checkpoint.load_state(
            state_path, trainer.network, trainer.average, trainer.optimiser
        )
    _forget_after(run_dir, progress.step)
    writer = SummaryWriter(run_dir / "tensorboard", purge_step=progress.step or None)
    validate = task.open_validation(run_dir)
    every = task.settings.validation.every_steps
    with closing(writer), interrupts_held() as interrupted:
        for losses in _train(trainer, run_dir, progress):
            _log(run_dir, writer, progress.step, "train", losses)
            if progress.step % every == 0 or progress.step == task.settings.steps:
                scores = validate(trainer.average)
                _log(run_dir, writer, progress.step, "validation", scores)
                _keep_best(trainer, run_dir, progress, scores)
            done = _done(task.settings, progress)
            due = progress.step % task.settings.save_every_steps == 0 or done
            if due or interrupted():
                _save(trainer, run_dir, progress)
            if interrupted():
                raise KeyboardInterrupt
            if done:
                break
    return run_dir / BEST_WEIGHTS


@contextmanager
def interrupts_held() -> Iterator[Callable[[], bool]]:
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


def progress_bar() -> Progress:
    """A bar that says how much is done and how long the rest will take."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )


def check_task(weights: Path, task: str) -> None:
    """Raise WeightsError when a file of ours says that it was fine-tuned for another task."""
    try:
        said = read_weights_header(weights).get("task", task)
    except WeightsError:
        return  # not ours, or not there: initialise says what is wrong
    if said != task:
        raise WeightsError(
            f"{weights} was fine-tuned for {said}, this run is about {task}; start from the "
            "foundation that it came from"
        )


def _build(task: Task[Any], tell: bool) -> Trainer:
    """tell: print what the network takes from settings.init."""
    settings = task.settings
    torch.manual_seed(settings.seed)
    network = build_network(task.network_name, task.network_settings)
    check_freeze(network, settings.freeze)
    if settings.init is not None:
        check_task(settings.init, task.name)
        whole = task.network_name if task.whole_init else f"{task.name} {task.network_name}"
        found = initialise(network, whole, settings.init)
        if tell:
            Console().print(init_table(found))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decay = settings.optimiser.average_decay
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return Trainer(task, network, average, build_optimiser(network, settings))


def _train(
    trainer: Trainer, run_dir: Path, progress: checkpoint.Progress
) -> Iterator[dict[str, float]]:
    """Run the remaining steps, counting progress.step up, and yield the losses of each."""
    settings = trainer.settings
    if _done(settings, progress):
        return
    batches = iter(trainer.task.batches(run_dir, progress.step))
    with progress_bar() as bar:
        line = bar.add_task("fine-tuning", total=settings.steps, completed=progress.step)
        while progress.step < settings.steps:
            trainer.network.train()
            freeze(trainer.network, settings.freeze, progress.step)
            losses = _step(trainer, batches, progress.step)
            progress.step += 1
            bar.update(line, advance=1, description=f"loss {losses['total']:.3f}")
            yield losses


def _step(trainer: Trainer, batches: Iterator[Any], step: int) -> dict[str, float]:
    settings = trainer.settings
    count = settings.optimiser.accumulate
    set_rate(trainer.optimiser, learning_rate(settings, step))
    trainer.optimiser.zero_grad(set_to_none=True)
    means: dict[str, float] = {}
    for _ in range(count):
        parts = trainer.task.loss(trainer.network, next(batches), step)
        (parts["total"] / count).backward()
        for name, value in parts.items():
            means[name] = means.get(name, 0.0) + float(value.detach()) / count
    nn.utils.clip_grad_norm_(
        trainer.network.parameters(), settings.optimiser.max_gradient_norm, error_if_nonfinite=True
    )
    trainer.optimiser.step()
    trainer.average.update_parameters(trainer.network)
    return means


def _keep_best(
    trainer: Trainer, run_dir: Path, progress: checkpoint.Progress, scores: dict[str, float]
) -> None:
    _save_average(trainer, run_dir / LAST_WEIGHTS, progress.step, scores)
    metric = trainer.settings.validation.metric
    if scores[metric] > progress.best:
        progress.best, progress.best_step = scores[metric], progress.step
        _save_average(trainer, run_dir / BEST_WEIGHTS, progress.step, scores)


def _save_average(trainer: Trainer, path: Path, step: int, scores: dict[str, float]) -> None:
    task = trainer.task
    header = {
        "architecture": task.network_name,
        "settings": task.network_settings,
        "training_config_sha256": settings_sha256(task.settings),
        "step": step,
        "validation": scores,
        **task.header(),
    }
    save_weights(trainer.average.module, path, header)


def _save(trainer: Trainer, run_dir: Path, progress: checkpoint.Progress) -> None:
    checkpoint.save_state(
        run_dir / STATE_FILE,
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
    with (run_dir / METRICS_FILE).open("a") as lines:
        lines.write(json.dumps({"step": step, "split": split, **values}) + "\n")


def _forget_after(run_dir: Path, step: int) -> None:
    """Drop what metrics.jsonl says of steps that a killed run took after its last saved state."""
    path = run_dir / METRICS_FILE
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(
        "".join(x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= step)
    )


def _open_run(settings: RunSettings, run_dir: Path, resume: bool) -> None:
    config = run_dir / CONFIG_FILE
    if config.exists() and not resume:
        raise OutputError(f"{run_dir} holds a run already. Resume it or name another folder.")
    if config.exists():
        earlier = load_settings(type(settings), config)
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


def _differences(earlier: RunSettings, now: RunSettings) -> list[str]:
    before, after = earlier.model_dump(), now.model_dump()
    return [name for name in before if before[name] != after[name]]


def _done(settings: RunSettings, progress: checkpoint.Progress) -> bool:
    """All steps taken, or as many validations as patience allows without a better one."""
    patience = settings.validation.patience
    waited = progress.step - progress.best_step
    stopped = patience is not None and waited >= patience * settings.validation.every_steps
    return stopped or progress.step >= settings.steps
