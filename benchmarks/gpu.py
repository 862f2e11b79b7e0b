# SPDX-License-Identifier: Apache-2.0
"""The GPU path: each network alone, and wirenet from array to Perception, on every runtime here.

    python benchmarks/gpu.py --json gpu.json

On an NVIDIA GPU the networks run in torch: float16, channels-last, one CUDA graph. Without one the
same command runs in float32 on the CPU, and its report says so. Weights of the networks alone are
random, which changes nothing about their speed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import onnx
import torch
import typer
from timing import milliseconds
from torch import Tensor, nn

from fedefm_core.cli.report import check_report_path, print_table, write_json
from fedefm_core.errors import RuntimeUnavailableError
from fedefm_core.export.bench import quantiles, table, time_frames, warm_up
from fedefm_core.export.half import to_half
from fedefm_core.export.onnx import Graph, save_model, to_onnx
from fedefm_core.frames import Frame
from fedefm_core.networks import build_network, load_network
from fedefm_core.perception import ModelMetadata, Segmenter, open_runtime
from fedefm_core.perception.runtimes import ORDER
from fedefm_core.perception.runtimes.torch import CapturedGraph
from fedefm_core.provenance import provenance
from fedefm_core.simulation import simulate_sequence

SEED = 8_000_009
NETWORKS = ("wirenet", "unet", "swinunet", "transunet", "vit_segmenter")
WEIGHTS = Path(__file__).parents[1] / "fedefm_core" / "models" / "wirenet.safetensors"


class HalfGraph(nn.Module):
    """The exported graph in torch: the network in float16, what surrounds it in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.graph = Graph(network)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # no cache of casted weights: a CUDA graph would replay none of it
        with torch.autocast(image.device.type, torch.float16, cache_enabled=False):
            outputs: tuple[Tensor, ...] = self.graph(image)
        return outputs


@torch.inference_mode()
def time_network(name: str, size: int, frames: int, on_gpu: bool) -> list[float]:
    """Milliseconds of each pass of a network, its image and its outputs in host memory."""
    torch.manual_seed(0)
    network = build_network(name, {})
    image = torch.randint(0, 256, (1, 1, size, size), dtype=torch.uint8)
    run: Callable[[Tensor], Any] = Graph(network).eval()
    if on_gpu:
        half = HalfGraph(network).eval().to("cuda", memory_format=torch.channels_last)
        run = CapturedGraph(half, image.cuda())
    run(image)
    return [milliseconds(lambda: run(image)) for _ in range(frames)]


def write_model(folder: Path, size: int, precision: str) -> Path:
    """wirenet with its trained weights, as a model file."""
    model = to_onnx(load_network(WEIGHTS), (size, size))
    if precision != "fp32":
        model = to_half(model, precision)
    path = folder / f"wirenet-{precision}.onnx"
    onnx.checker.check_model(model)
    save_model(model, ModelMetadata(path.stem, "wirenet", precision, (size, size), ""), path)
    return path


def time_perception(path: Path, runtime: str, frames: list[Frame]) -> dict[str, Any]:
    """From array to Perception, one by one, and frames a second when they overlap."""
    segmenter = Segmenter(open_runtime(path, runtime))
    warm_up(segmenter, frames, min(10, len(frames)))
    timings = {stage: quantiles(v) for stage, v in time_frames(segmenter, frames).items()}
    started = time.perf_counter()
    for _ in segmenter.stream(frames):
        pass
    return {"timings_ms": timings, "stream_fps": len(frames) / (time.perf_counter() - started)}


def run(
    frames: Annotated[int, typer.Option(min=1, help="To time on each side.")] = 300,
    size: Annotated[int, typer.Option(min=64, help="Side of the networks' image.")] = 512,
    network: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(NETWORKS)}; default: all.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
) -> None:
    """Time the networks alone and perception as a whole."""
    if json is not None:
        check_report_path(json)
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else "CPU: there is no GPU that torch can use"
    precision = "fp16" if on_gpu else "fp32"
    typer.echo(f"{device}, {precision}, {size} x {size}, {frames} frames")
    alone = {n: quantiles(time_network(n, size, frames, on_gpu)) for n in network or NETWORKS}
    print_table(table(alone))
    sequence = [s.frame for s in simulate_sequence(SEED, frames)]
    whole: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(Path(folder), size, precision)
        for name in ORDER:
            try:
                whole[name] = time_perception(path, name, sequence)
            except RuntimeUnavailableError as error:
                whole[name] = {"skipped": str(error)}
                typer.echo(f"{name}: {error}")
    measured = {n: w["timings_ms"]["wall"] for n, w in whole.items() if "timings_ms" in w}
    typer.echo("wirenet, from array to Perception")
    print_table(table(measured))
    for name in measured:
        typer.echo(f"{name}: {whole[name]['stream_fps']:.0f} frames/s in a stream")
    if json is not None:
        report = {"device": device, "precision": precision, "size": size, "frames": frames}
        report |= {"networks_ms": alone, "perception": whole, "provenance": provenance(seed=SEED)}
        write_json(report, json)


if __name__ == "__main__":
    typer.run(run)
