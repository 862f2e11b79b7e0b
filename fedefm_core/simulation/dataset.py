# SPDX-License-Identifier: Apache-2.0
"""A data set of simulated images in a folder: images, masks, truth.json and a contact sheet.

    DIR/images/000000.png      8, 12 or 16 bit grey
    DIR/masks/000000.png       0 background, 1 catheter, 2 guidewire
    DIR/truth.json             plan, provenance and, by frame, what docs/simulation.md lists
    DIR/contact_sheet.png

While it is being written, truth.partial.jsonl holds the plan and a line for each finished frame:
an interrupted run goes on after the last of them.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedefm_core.errors import OutputError, SimulationError
from fedefm_core.provenance import package_versions, provenance
from fedefm_core.simulation.backgrounds import check_backgrounds
from fedefm_core.simulation.contact_sheet import draw_contact_sheet
from fedefm_core.simulation.scene import simulate_frame
from fedefm_core.simulation.sequence import insertion_frame, random_insertion
from fedefm_core.simulation.settings import SimulationSettings
from fedefm_core.simulation.truth import KINDS, InstrumentTruth, SimulatedFrame
from fedefm_core.workers import end_with_parent

TRUTH_FILE = "truth.json"
PARTIAL_FILE = "truth.partial.jsonl"
CONTACT_SHEET_FILE = "contact_sheet.png"
EACH = "each"  # kind of a data set that holds every kind equally often
BLOCK = 16  # frames that a worker draws in one go
_DRAWN_WITH = ("fedefm_ros", "numpy", "opencv-python", "opencv-python-headless")

Entry = dict[str, Any]


@dataclass(frozen=True)
class DatasetPlan:
    """What decides every byte of the images and masks, with the files of real backgrounds.

    kind: one of KINDS, EACH for one after the other, or None to draw it by settings.kind_weights.
    sequence: the frames of one insertion at 30 Hz instead of still frames.
    """

    seed: int
    count: int
    settings: SimulationSettings
    kind: str | None = None
    sequence: bool = False

    def record(self) -> dict[str, Any]:
        """The plan as plain JSON, with the versions of what draws it."""
        versions = package_versions()
        return {
            "seed": self.seed,
            "count": self.count,
            "kind": self.kind,
            "sequence": self.sequence,
            "settings": self.settings.model_dump(mode="json"),
            "drawn_with": {name: versions[name] for name in _DRAWN_WITH if name in versions},
        }


def write_dataset(plan: DatasetPlan, folder: Path, workers: int = 1) -> Iterator[bool]:
    """Write the data set, yielding once a frame: True when drawn, False when it was there.

    The bytes of images and masks, and the frames of truth.json, depend on the plan alone. The
    truth file and the contact sheet are written after the last frame.
    Raises OutputError when the folder holds something else or cannot be written, SimulationError
    when the plan cannot be drawn. With several workers, a script that calls this needs the usual
    guard, if __name__ == "__main__", because the workers import it.
    """
    possible = KINDS if plan.sequence else (*KINDS, EACH)
    if plan.kind is not None and plan.kind not in possible:
        raise SimulationError(f"'kind' must be one of {', '.join(possible)} (got '{plan.kind}')")
    for background in plan.settings.backgrounds:
        check_backgrounds(background)  # now, not at the first frame that is drawn on one
    entries = _open_folder(plan, folder)
    yield from (False for _ in entries)
    missing = [index for index in range(plan.count) if frame_name(index) not in entries]
    if not missing and (folder / TRUTH_FILE).is_file() and (folder / CONTACT_SHEET_FILE).is_file():
        return
    _write_partial(plan, folder, entries.values())
    with _writing(folder / PARTIAL_FILE), (folder / PARTIAL_FILE).open("a") as lines:
        for entry in _draw(plan, folder, missing, workers):
            lines.write(_line(entry) + "\n")
            lines.flush()
            entries[entry["name"]] = entry
            yield True
    _finish(plan, folder, [entries[frame_name(index)] for index in range(plan.count)])


def frame_name(index: int) -> str:
    """Name of a frame's files, without the suffix."""
    return f"{index:06d}"


def frame_entry(name: str, frame: SimulatedFrame) -> Entry:
    """What truth.json says of a frame."""
    return {
        "name": name,
        "kind": frame.kind,
        "image": f"images/{name}.png",
        "mask": f"masks/{name}.png",
        "stamp_ns": frame.frame.stamp_ns,
        "instruments": [_instrument_entry(truth) for truth in frame.instruments],
    }


def _instrument_entry(truth: InstrumentTruth) -> Entry:
    return {
        "kind": truth.kind,
        "tip_px": None if truth.tip_px is None else np.round(truth.tip_px, 3).tolist(),
        "heading_rad": None if truth.heading_rad is None else round(truth.heading_rad, 6),
        "width_px": round(truth.width_px, 3),
        "contrast_to_noise": round(truth.contrast_to_noise, 3),
        "centerline_px": np.round(truth.centerline_px, 3).tolist(),
    }


def _draw(
    plan: DatasetPlan, folder: Path, indices: Sequence[int], workers: int
) -> Iterator[Entry]:
    blocks = [indices[start : start + BLOCK] for start in range(0, len(indices), BLOCK)]
    draw = partial(_draw_block, plan, folder)
    if workers == 1 or len(blocks) < 2:
        for block in blocks:
            yield from draw(block)
        return
    # Not forked: a forked process inherits locks of OpenCV's threads without the threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(blocks)), context, initializer=_start_worker)
    try:
        for drawn in pool.map(draw, blocks):
            yield from drawn
    except BrokenProcessPool as error:
        raise SimulationError(
            "A worker process was killed, perhaps for lack of memory; start again with fewer "
            "workers to go on from the last finished frame"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process tells the workers to end
    end_with_parent()
    cv2.setNumThreads(1)


def _draw_block(plan: DatasetPlan, folder: Path, indices: Sequence[int]) -> list[Entry]:
    """Draw and write the frames of the block."""
    if plan.sequence:
        insertion = random_insertion(plan.seed, plan.count, plan.settings, plan.kind)
        frames = (insertion_frame(insertion, index) for index in indices)
    else:
        frames = (
            simulate_frame(plan.seed, index, plan.settings, _kind(plan, index))
            for index in indices
        )
    entries = []
    for index, frame in zip(indices, frames, strict=True):
        entry = frame_entry(frame_name(index), frame)
        _write_png(folder / entry["image"], frame.frame.pixels)
        _write_png(folder / entry["mask"], frame.label_map)
        entries.append(entry)
    return entries


def _kind(plan: DatasetPlan, index: int) -> str | None:
    return KINDS[index % len(KINDS)] if plan.kind == EACH else plan.kind


def _open_folder(plan: DatasetPlan, folder: Path) -> dict[str, Entry]:
    """Entries, by name, of the plan's frames that the folder already holds; refuse any other."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} must be a folder (it is a file)")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        content = sorted(path.name for path in folder.iterdir())
    held, entries = _read_partial(folder) or _read_truth(folder) or (None, [])
    if held is None and content:
        raise OutputError(
            f"{folder} must be new, empty or hold the same data set, begun earlier "
            f"(it holds {content[0]} and no {TRUTH_FILE} that says what it is)"
        )
    if held is not None:
        _check_same(plan.record(), held, folder)
    return {entry["name"]: entry for entry in entries if _has_files(entry, folder)}


def _check_same(wanted: Mapping[str, Any], held: Mapping[str, Any], folder: Path) -> None:
    differences = [
        f"{key} {json.dumps(held.get(key))}, not {json.dumps(value)}"
        for key, value in wanted.items()
        if held.get(key) != value
    ]
    if differences:
        raise OutputError(
            f"{folder} holds another data set: {'; '.join(differences)}. "
            "Name another folder, or empty this one"
        )


def _has_files(entry: Entry, folder: Path) -> bool:
    return all((folder / str(entry[key])).is_file() for key in ("image", "mask"))


def _read_partial(folder: Path) -> tuple[Entry, list[Entry]] | None:
    """The plan and the finished frames of an interrupted run; None when there was none."""
    path = folder / PARTIAL_FILE
    if not path.exists():
        return None
    # The run may have ended within a line: only those with a line feed are whole.
    lines = _read_text(path).split("\n")[:-1]
    plan, *frames = [_parse(path, line) for line in lines] or [None]
    if not isinstance(plan, dict):
        raise OutputError(f"{path}, which says what the folder holds, has no plan on line 1")
    return plan, frames


def _read_truth(folder: Path) -> tuple[Entry, list[Entry]] | None:
    """The plan and the frames of a finished data set; None when there is none."""
    path = folder / TRUTH_FILE
    if not path.exists():
        return None
    content = _parse(path, _read_text(path))
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise OutputError(f"{path} was not written by 'simulate': it has no list 'frames'")
    return content, content["frames"]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"Cannot read {path}, which says what the folder holds") from error


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise OutputError(f"{path}, which says what the folder holds, is damaged") from error


def _write_partial(plan: DatasetPlan, folder: Path, entries: Iterable[Entry]) -> None:
    lines = [plan.record(), *entries]
    _write_text(folder / PARTIAL_FILE, "".join(_line(line) + "\n" for line in lines))
    with _writing(folder):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)


def _finish(plan: DatasetPlan, folder: Path, entries: Sequence[Entry]) -> None:
    """Write the contact sheet and truth.json, a line a frame; then the run counts as finished."""
    with _writing(folder / CONTACT_SHEET_FILE):
        draw_contact_sheet(folder, entries, folder / CONTACT_SHEET_FILE)
    head = {**plan.record(), "provenance": provenance()}
    frames = ",\n".join(_line(entry) for entry in entries)
    text = (
        json.dumps(head, indent=2).removesuffix("\n}") + f',\n  "frames": [\n{frames}\n  ]\n}}\n'
    )
    _write_text(folder / TRUTH_FILE, text)
    with _writing(folder / PARTIAL_FILE):
        (folder / PARTIAL_FILE).unlink()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"))


def _write_png(path: Path, pixels: npt.NDArray[Any]) -> None:
    _, data = cv2.imencode(".png", pixels)
    with _writing(path):
        path.write_bytes(data.tobytes())


def _write_text(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    with _writing(path):
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}") from error
