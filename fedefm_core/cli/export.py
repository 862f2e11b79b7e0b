# SPDX-License-Identifier: Apache-2.0
"""'fedefm_core export' and 'describe': a model file from weights, and what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.main import app

PARITY_SUFFIX = ".parity.json"


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Folder of a training run, or its weights.")],
    out: Annotated[Path, typer.Option(help="The model file to write, NAME.onnx.")],
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8.")] = "fp32",
    activations: Annotated[
        str, typer.Option(help="Of int8: uint8, or int8 for TensorRT, which drifts more.")
    ] = "uint8",
    calibration: Annotated[
        Path | None, typer.Option(help="Real images, unlabelled, to choose int8 ranges with.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: that of the file.")] = None,
    calibration_frames: Annotated[
        int, typer.Option(help="Simulated frames, and as many real ones.")
    ] = 128,
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Part that int8 leaves in float, as encoder.0.")
    ] = None,
    parity_frames: Annotated[int, typer.Option(help="Simulated frames to compare on.")] = 100,
    weights: Annotated[
        Path | None,
        typer.Option(help="Also write the weights, in float16, for 'init' of another training."),
    ] = None,
) -> None:
    """Write a model file, and a parity report beside it; fail when the model has drifted."""
    from fedefm_core.cli.report import check_report_path, print_table, write_json
    from fedefm_core.config import parse_settings
    from fedefm_core.export.model import (
        ExportSettings,
        check_out,
        find_weights,
        prepare,
        publish,
    )
    from fedefm_core.export.parity import table

    values = {
        "name": name or out.stem,
        "precision": precision,
        "activations": activations,
        "calibration_folder": calibration,
        "calibration_frames": calibration_frames,
        "keep_float": keep_float or (),
        "parity_frames": parity_frames,
    }
    settings = parse_settings(ExportSettings, values, where="the options of export")
    check_out(out)
    if weights is not None:
        check_report_path(weights, "weights file")
    prepared = prepare(source, settings)
    write_json(prepared.report, out.with_suffix(PARITY_SUFFIX))
    print_table(table(prepared.parities.values()))
    metadata = publish(prepared, out)
    typer.echo(f"{out}: {metadata.name}, {metadata.precision}, {out.stat().st_size} bytes")
    if weights is not None:
        from fedefm_core.networks import load_network, save_weights

        trained = find_weights(source)
        save_weights(load_network(trained.path), weights, trained.header, half=True)
        typer.echo(f"{weights}: float16 weights, {weights.stat().st_size} bytes")


@app.command()
def describe(
    model: Annotated[Path, typer.Argument(help="An exported model file.")],
    metrics: Annotated[
        Path | None, typer.Option(help="Report of 'evaluate' on this model, to store in it.")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Where to write a model card.")] = None,
    study: Annotated[
        Path | None, typer.Option(help="Report of the study of real images, for the card.")
    ] = None,
    notes: Annotated[
        Path | None, typer.Option(help="Markdown on failures that were seen, for the card.")
    ] = None,
) -> None:
    """Say what a model file says of itself; store its metrics in it; write its card."""
    from fedefm_core.cli.report import write_text
    from fedefm_core.export.card import (
        add_metrics,
        model_card,
        read_notes,
        read_parity,
        read_report,
        read_study,
    )
    from fedefm_core.perception import read_metadata

    if metrics is not None:
        add_metrics(model, read_report(metrics))
    metadata = read_metadata(model)
    text = model_card(
        metadata,
        read_parity(model.with_suffix(PARITY_SUFFIX), metadata),
        None if study is None else read_study(study, metadata),
        "" if notes is None else read_notes(notes),
    )
    if card is None:
        typer.echo(text)
    else:
        write_text(text, card)
