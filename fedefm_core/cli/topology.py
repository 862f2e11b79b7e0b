# SPDX-License-Identifier: Apache-2.0
"""'fedefm_core topology': what each way to join the silos of a network costs, and how it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedefm_core.cli.main import app


@app.command()
def topology(
    underlay: Annotated[
        str,
        typer.Argument(
            help="gaia, amazon_us, geant, exodus, ebone, or your own network as a .yaml file."
        ),
    ],
    model_mbit: Annotated[
        float | None, typer.Option(help="Size of the model in 10^6 bit. Default: 4.84.")
    ] = None,
    compute_ms: Annotated[
        float | None, typer.Option(help="Computing of a silo in a round. Default: 4.6.")
    ] = None,
    overseas_ms: Annotated[
        float | None, typer.Option(help="Training of one guest. Default: as --compute-ms.")
    ] = None,
    known_capacities: Annotated[
        bool,
        typer.Option(
            "--known-capacities", help="Capacities of the file where known, not 1 Gbit/s each."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the rounds that MATCHA draws.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the drawings. Default: that of --json, or UNDERLAY_overlays."
        ),
    ] = None,
) -> None:
    """Print cycle times and traffic of all topologies on a network, and draw each of them."""
    from fedefm_core.cli.report import print_table, write_json
    from fedefm_core.config import parse_settings
    from fedefm_core.federation.cycle_time import RoundSettings
    from fedefm_core.federation.topology_drawing import draw_topologies
    from fedefm_core.federation.topology_overlays import TOPOLOGIES, build_topology
    from fedefm_core.federation.topology_report import table, topology_report
    from fedefm_core.federation.underlays import connect, load_underlay
    from fedefm_core.provenance import provenance

    options = {"model_mbit": model_mbit, "compute_ms": compute_ms, "overseas_ms": overseas_ms}
    given = {name: value for name, value in options.items() if value is not None}
    settings = parse_settings(RoundSettings, given, where="the options of topology")
    road_map = load_underlay(underlay)
    network = connect(road_map, known_capacities=known_capacities)
    topologies = [build_topology(name, network, settings, seed) for name in TOPOLOGIES]
    figures = topology_report(topologies, network, settings)

    typer.echo(road_map.title)
    typer.echo(
        f"{len(network.silos)} silos, model {settings.model_mbit:g} Mbit, "
        f"{settings.compute_ms:g} ms of computing a round. A round, on average:"
    )
    print_table(table(figures))
    megabytes = settings.model_mbit / 8
    typer.echo(
        f"One way: models are sent once ({megabytes:.3g} MB a link). MFD: they go out, "
        f"are trained there and come home ({2 * megabytes:.3g} MB a link)."
    )
    if json is not None:
        report = {
            "underlay": road_map.name,
            "title": road_map.title,
            "source": road_map.source,
            "silos": list(network.silos),
            "known_capacities": known_capacities,
            "topologies": figures,
            "provenance": provenance(settings, seed),
        }
        write_json(report, json)
    folder = out or (json.parent if json is not None else Path(f"{road_map.name}_overlays"))
    for path in draw_topologies(topologies, road_map, figures, folder):
        typer.echo(path)
