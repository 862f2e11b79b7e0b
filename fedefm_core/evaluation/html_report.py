# SPDX-License-Identifier: Apache-2.0
"""One HTML file that a clinician can read: what was trained, how well it does, on which images.

It holds its pictures and needs nothing else, no network either.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml
from matplotlib.colors import to_hex

from fedefm_core.evaluation.report_plots import (
    Example,
    draw_dice,
    draw_examples,
    draw_losses,
    draw_reliability,
    draw_tips,
    draw_validation,
)
from fedefm_core.evaluation.run_records import RunRecord
from fedefm_core.evaluation.tables import class_table, region_table, tip_table
from fedefm_core.perception.overlay import plot_color

Rows = Sequence[Sequence[str]]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; border-top: 1px solid #ccc;
     padding-top: 1rem; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .88rem; display: block;
        overflow-x: auto; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { background: #f2f2f2; }
img { max-width: 100%; height: auto; } figure { margin: 1.2rem 0; }
figcaption, .note { color: #444; font-size: .9rem; }
.warning { border-left: 4px solid #d55e00; padding: .4rem .9rem; background: #fdf3ec; }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .3em; }
dt { font-weight: 600; } dd { margin: 0 0 .6rem 0; }
"""
_WORDS = {
    "Dice": "How well the marked area covers the true one: 1 is a perfect match, 0 none at all. "
    "Thin wires rarely get close to 1, because a shift by one pixel already costs much.",
    "IoU, mIoU": "As Dice, but stricter: shared area divided by the area of both together. "
    "mIoU is its mean over catheter and guidewire; 'with backgr.' counts the empty rest of the "
    "image as a third class, which lifts it.",
    "clDice, line F1": "How much of the course of an instrument is followed, whatever its width. "
    "F1 at 3 px asks whether the centre lines lie within 3 pixels of each other.",
    "HD95": "The distance that all but the worst 5 % of the outline stay within.",
    "Tip error": "Distance between the tip that was found and the true one, for tips that were "
    "found. Missed: true tips that were not found. False: tips that are none. Read all three "
    "together.",
    "[low high]": "The true value lies between these two with 95 % confidence, if the images are "
    "like others of their kind.",
}
_CAPTIONS = {
    "loss": "The error on training images. A curve that has become flat says that longer training "
    "would change little.",
    "validation": "Success on images that were not learnt from.",
    "dice": "Dice by kind of image. Black lines are 95 % intervals: where they overlap, a "
    "difference may be chance.",
    "tips": "Tips that are found within a distance. Where a curve ends is the share found at all.",
    "reliability": "Does the network know when it is wrong? On the dashed line it is as often "
    "right as it says; below it, it is too sure of itself.",
    "examples": "Images that were not learnt from, chosen evenly and not by success. At the top "
    "the image, then what is true, then what was found: catheters blue, guidewires orange.",
}


def write_report(
    records: Sequence[RunRecord],
    examples: Mapping[str, Sequence[Example]],
    folder: Path,
    command: str,
) -> Path:
    """Write report.html and plots/*.png, *.pdf into folder; returns the path of the page.

    examples: by name of record. command: that makes it again. Raises OSError.
    """
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    trainings = [record for record in records if record.is_training]
    evaluations = _evaluations(records)
    parts = [_heading(records, command)]
    if trainings:
        parts.append(_trainings(trainings, plots))
    if evaluations:
        parts.append(_measured(evaluations, plots))
    parts += [
        _examples(name, draw_examples(frames, name, plots))
        for name, frames in examples.items()
        if frames
    ]
    parts += [_glossary(), _settings(trainings)]
    page = folder / "report.html"
    page.write_text(_page("\n".join(parts)), encoding="utf-8")
    return page


def _heading(records: Sequence[RunRecord], command: str) -> str:
    names = ", ".join(record.name for record in records)
    return (
        f"<h1>Catheters and guidewires in X-ray: {escape(names)}</h1>"
        '<p class="warning">Research use only. Not a medical device. All figures hold for the '
        "images that they were measured on, and for no others.</p>"
        f"<p>A network marks the pixels of catheters {_key('catheter')} and guidewires "
        f"{_key('guidewire')} in X-ray images, and says where "
        "their tips are. This page says how it was trained and how often it is right.</p>"
        f'<p class="note">Made by <code>{escape(command)}</code></p>'
    )


def _key(kind: str) -> str:
    """A patch of the color that the pictures have for this kind of instrument."""
    return f'<span class="key" style="background:{to_hex(plot_color(kind))}"></span>'


def _trainings(records: Sequence[RunRecord], plots: Path) -> str:
    header = ("run", "network", "started from", "labels", "steps", "best at")
    scores = ("Dice catheter", "Dice guidewire", "tips found")
    return (
        "<h2>Training</h2>"
        "<p>While it learns, a network is tried on images that it does not learn from. The "
        "weights that did best there were kept; the table has their figures.</p>"
        + _table([(*header, *scores), *(_training_row(record) for record in records)])
        + _figure(draw_losses(records, plots), "loss")
        + _figure(draw_validation(records, plots), "validation")
    )


def _training_row(record: RunRecord) -> tuple[str, ...]:
    config, best = record.config, record.best() or {}
    taught = len(config.get("teachers", ()))
    source = str(config.get("init") or "random weights")
    if taught:
        source += f", {taught} teacher{'s' if taught > 1 else ''}"
    last = record.split("train")[-1]["step"] if record.split("train") else 0
    return (
        record.name,
        str(config.get("architecture", "-")),
        Path(source).name,
        f"{config.get('labels', {}).get('percent', 100)} %",
        f"{last} of {config.get('steps', '-')}",
        str(best.get("step", "-")),
        *(_number(best.get(key)) for key in ("dice_catheter", "dice_guidewire", "tip_score")),
    )


def _measured(evaluations: Mapping[str, Mapping[str, Any]], plots: Path) -> str:
    parts = ["<h2>How often it is right</h2>"]
    for name, report in evaluations.items():
        groups = report["groups"]
        parts.append(
            f"<h3>{escape(name)}</h3><p>{escape(_what(report))}</p>" + _table(region_table(groups))
        )
        parts.append(_table(class_table(groups)))
        if groups["all"]["tips"] is not None:
            parts.append(_table(tip_table(groups)))
            parts.append(f"<p>{escape(_tips_in_words(groups['all']))}</p>")
    parts.append(_figure(draw_dice(evaluations, plots), "dice"))
    if any(report["groups"]["all"]["tips"] is not None for report in evaluations.values()):
        parts.append(_figure(draw_tips(evaluations, plots), "tips"))
    parts.append(_figure(draw_reliability(evaluations, plots), "reliability"))
    return "".join(parts)


def _what(report: Mapping[str, Any]) -> str:
    model = report["model"]
    return (
        f"Model {model['name']} ({model['precision']}, weights {model['weights_sha256'][:12]}) on "
        f"{len(report['frames'])} images of {report.get('images', 'a set')}."
    )


def _tips_in_words(group: Mapping[str, Any]) -> str:
    tips, more = group["tips"]["all"], group["tips_more"]["all"]
    missed, false = tips["missed"], tips["false"]
    words = (
        f"Of {missed['n']} tips, {missed['n'] - missed['count']} were found and "
        f"{missed['count']} missed; {false['count']} of {false['n']} reported tips were none."
    )
    near = more["pck"].get("9")
    if near is not None and near["rate"] is not None:
        words += f" {100 * near['rate']:.0f} % were found within 9 pixels."
    error = more["error_mm"]
    if error["n"]:
        words += f" The median error was {error['median']:.2f} mm over {error['n']} tips."
    coverage = more["covariance_coverage"]["0.9"]
    if coverage["rate"] is not None:
        words += (
            f" The ellipses that should hold 90 % of the tips held {100 * coverage['rate']:.0f} %."
        )
    return words


def _examples(name: str, picture: Path) -> str:
    return f"<h2>Examples: {escape(name)}</h2>" + _figure(picture, "examples")


def _glossary() -> str:
    words = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in _WORDS.items())
    return f"<h2>What the figures mean</h2><dl>{words}</dl>"


def _settings(records: Sequence[RunRecord]) -> str:
    """All settings, folded away: for those who want to repeat it."""
    return "".join(
        f"<details><summary>Settings of {escape(record.name)}</summary><pre>"
        f"{escape(yaml.safe_dump(dict(record.config), sort_keys=False))}</pre></details>"
        for record in records
    )


def _evaluations(records: Sequence[RunRecord]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for record in records:
        for name, report in record.evaluations.items():
            found[f"{record.name}/{name}" if record.is_training else record.name] = report
    return found


def _table(rows: Rows) -> str:
    header, *body = rows
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _figure(picture: Path, key: str) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    caption = escape(_CAPTIONS[key])
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{float(value):.3f}"


def _page(body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>FedEFM report</title><style>{_STYLE}</style></head>\n<body>{body}</body></html>\n"
    )
