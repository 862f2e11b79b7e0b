# SPDX-License-Identifier: Apache-2.0
"""A federation of three hospitals on this machine, one of which loses power: 'make federate-demo'.

Start-up kits with certificates, a server and three sites as processes with mutual TLS on the
loopback, a small network, three rounds of MFD on a ring. In the second round a site is killed, and
started again; the job goes on without it, and from the next round on with it. At the end there is
a table, and Θ measured on images of all three kinds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedefm_core.config import parse_settings
from fedefm_core.corpora import load_corpora, load_manifest
from fedefm_core.federation.flare.console import (
    fetch,
    follow,
    open_session,
    submit,
    wait_for_sites,
)
from fedefm_core.federation.flare.kits import provision
from fedefm_core.federation.flare.local import Participant, free_port, running, site_of_each_silo
from fedefm_core.federation.flare.settings import ProjectSettings
from fedefm_core.federation.settings import PretrainSettings

KINDS = ("human", "phantom", "retina")
KILLED_IN = 1  # counted from 0: the second round
MANIFEST = "corpora.yaml"


def main() -> None:
    """Run the demo in the folder --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/federate-demo"))
    out = parser.parse_args().out / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True)
    console = Console()
    project = demo_project(out)
    console.print("Drawing images (kept for the next time) ...")
    load_corpora(load_manifest(project.pretrain.corpora.manifest))
    sites = site_of_each_silo(project.pretrain, threads=1)
    kits = provision(project, out / "kits", sites)
    console.print(f"Start-up kits with certificates: {out / 'kits'}")
    with running(project, kits) as started, open_session(kits[project.owner], 300) as session:
        wait_for_sites(session, set(project.sites), 300)
        console.print(f"Server and {len(project.sites)} sites are connected, by mutual TLS")
        victim = sorted(project.sites)[1]
        accident = Accident(victim, started[victim], console)
        job = submit(session, project)
        job, _ = follow(session, project, job, console.print, watch=accident.watch)
        results = fetch(session, job, out / "results")
    console.print(table_of(results))
    theta = json.loads((results / "summary.json").read_text())["theta"]
    console.print(f"Θ on images of all kinds: accuracy {theta['accuracy']:.3f}")
    for kind, accuracy in theta["by_corpus"].items():
        console.print(f"  {kind}: {accuracy:.3f}")
    console.print(f"Results: {results}")


class Accident:
    """Kills a site in the round KILLED_IN and starts it again, once."""

    def __init__(self, name: str, site: Participant, console: Console) -> None:
        self._name, self._site, self._console = name, site, console
        self._happened = False

    def watch(self, now: dict[str, Any]) -> None:
        """See whether it is time."""
        if self._happened or now.get("round") != KILLED_IN:
            return
        self._happened = True
        self._console.print(f"Round {KILLED_IN}: the processes of '{self._name}' are killed (-9)")
        self._site.kill()
        self._site.start()
        self._console.print(f"'{self._name}' is started again")


def demo_project(out: Path) -> ProjectSettings:
    """Three sites, each with a kind of simulated image that no other has."""
    corpora = "\n".join(f"  {k}: {{adapter: 'simulated:{k}', count: 40}}" for k in KINDS)
    (out / MANIFEST).write_text(f"size: 32\ncorpora:\n{corpora}\n")
    pretraining = {
        "corpora": {"manifest": str((out / MANIFEST).absolute())},
        "algorithm": {"name": "mfd", "distil_steps": 2},
        "topology": {"name": "ring"},
        "rounds": 3,
        "local_steps": 10,
        "training": {"batch_size": 8},
        "evaluation": {"split": "test", "silos": False},
        "tensorboard": False,
    }
    sites = site_of_each_silo(parse_settings(PretrainSettings, pretraining), threads=1)
    values = {
        "name": "demo",
        "server": {"port": free_port()},
        "sites": dict.fromkeys(sites, "hospital"),
        "deadlines": {"answer": 20, "join": 300, "training": 60, "transfer": 20},
        "pretrain": pretraining,
    }
    return parse_settings(ProjectSettings, values)


def table_of(results: Path) -> Table:
    """A line a round: who took part, what it cost, how good Θ was."""
    table = Table(title="Federation")
    for title in ("round", "sites", "loss at home", "KiB sent", "accuracy of Θ", "what happened"):
        table.add_column(title)
    for text in (results / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        losses = list(line["losses"].get("local", {}).values())
        mean = f"{sum(losses) / len(losses):.3f}" if losses else "-"
        accuracy = f"{line['theta']['accuracy']:.3f}" if "theta" in line else "-"
        present = str(len(KINDS) - len(line["failures"]))
        sent = f"{line['bytes'] / 1024:.0f}"
        told = "; ".join(line["failures"].values()) or "all took part"
        table.add_row(str(line["round"]), present, mean, sent, accuracy, told)
    return table


if __name__ == "__main__":
    main()
