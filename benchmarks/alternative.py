# SPDX-License-Identifier: Apache-2.0
"""Our perception in turns with the obvious alternative, a MONAI UNet in eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from monai.networks.nets import UNet
from timing import milliseconds

from fedefm_core.cli.report import print_table, write_json
from fedefm_core.export.bench import quantiles, table, warm_up
from fedefm_core.frames import Frame, to_grey8
from fedefm_core.perception import Segmenter, open_runtime
from fedefm_core.provenance import provenance, usable_cpus
from fedefm_core.simulation import simulate_sequence

SEED = 8_000_009
CLASSES = 3


def alternative() -> Callable[[bytes, tuple[int, int]], bytes]:
    """A function from a message's bytes and (height, width) to the label map's bytes."""
    network = UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=CLASSES,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    ).eval()

    @torch.no_grad()
    def segment(data: bytes, shape: tuple[int, int]) -> bytes:
        image = np.array(np.frombuffer(data, np.uint8).reshape(shape))  # imgmsg_to_cv2 copies
        batch = torch.from_numpy(image.astype(np.float32) / 255.0)[None, None]
        labels = torch.softmax(network(batch), dim=1).argmax(dim=1)[0]
        return labels.numpy().astype(np.uint8).tobytes()  # and so does cv2_to_imgmsg

    return segment


def compare(
    segmenter: Segmenter, frames: list[Frame], warm_up_frames: int
) -> dict[str, list[float]]:
    """Milliseconds a frame of each side, frame by frame in turns."""
    segment = alternative()
    messages = [np.ascontiguousarray(to_grey8(frame)) for frame in frames]
    data = [(message.tobytes(), (message.shape[0], message.shape[1])) for message in messages]
    for index in range(warm_up_frames):
        segment(*data[index % len(data)])
    warm_up(segmenter, frames, warm_up_frames)
    times: dict[str, list[float]] = {"fedefm_core": [], "alternative": []}
    for frame, message in zip(frames, data, strict=True):
        times["fedefm_core"].append(milliseconds(lambda f=frame: segmenter.process(f)))
        times["alternative"].append(milliseconds(lambda m=message: segment(*m)))
    return times


def run(
    model: Annotated[str | None, typer.Option(help="Default: the shipped model.")] = None,
    runtime: Annotated[str, typer.Option(help="Of our side.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Of each side; 0: all CPUs.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Frames to time on each side.")] = 200,
    warm_up_frames: Annotated[int, typer.Option("--warm-up", min=0, help="Untimed.")] = 20,
    json: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
) -> None:
    """Time both sides in one run and print how many times faster ours is."""
    threads = threads or usable_cpus()
    torch.set_num_threads(threads)
    segmenter = Segmenter(open_runtime(model, runtime, threads))
    sequence = [simulated.frame for simulated in simulate_sequence(SEED, frames)]
    times = compare(segmenter, sequence, warm_up_frames)
    timings_ms = {side: quantiles(values) for side, values in times.items()}
    ratio = timings_ms["alternative"]["p50"] / timings_ms["fedefm_core"]["p50"]
    print_table(table(timings_ms))
    typer.echo(f"The alternative takes {ratio:.1f} times as long (p50, {frames} frames).")
    if json is not None:
        settings = {"threads": threads, "frames": frames, "warm_up": warm_up_frames}
        report = {
            "model": segmenter.runtime.metadata.name,
            "runtime": segmenter.runtime.name,
            "timings_ms": timings_ms,
            "ratio_p50": ratio,
            "options": settings,
            "provenance": provenance(seed=SEED),
        }
        write_json(report, json)


if __name__ == "__main__":
    typer.run(run)
