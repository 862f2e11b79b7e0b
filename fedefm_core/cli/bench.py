# SPDX-License-Identifier: Apache-2.0
"""'fedefm_core bench': latency of perception, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.main import app


@app.command()
def bench(
    model: Annotated[
        str | None, typer.Option(help="Path or shipped name; default: the shipped model.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, ...")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="0: the runtime's own choice.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Simulated frames to time.")] = 300,
    warm_up: Annotated[int, typer.Option(min=0, help="Frames to run first, untimed.")] = 30,
    json: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
) -> None:
    """Time perception from array to result on a simulated insertion."""
    from fedefm_core.cli.report import check_report_path, print_table, write_json
    from fedefm_core.export import bench as benching

    if json is not None:
        check_report_path(json)
    settings = benching.BenchSettings(
        model=model, runtime=runtime, threads=threads, frames=frames, warm_up=warm_up
    )
    report = benching.bench(settings)
    typer.echo(
        f"{report['model']} ({report['precision']}) on {report['runtime']}, "
        f"{frames} frames after {warm_up} to warm up"
    )
    print_table(benching.table(report["timings_ms"]))
    if json is not None:
        write_json(report, json)
