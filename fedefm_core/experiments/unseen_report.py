# SPDX-License-Identifier: Apache-2.0
"""Tables, plots and page of the study of unseen data, from its finished cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedefm_core.experiments.study import Result, Rows
from fedefm_core.experiments.unseen import (
    TITLES,
    Budget,
    ClaimSettings,
    GroupSettings,
    Key,
    Measure,
    Outcome,
    Place,
    UnseenSettings,
    pretrain_settings,
)
from fedefm_core.experiments.unseen_cell import CellResult
from fedefm_core.experiments.unseen_plot import Curve, Panel, draw_panels
from fedefm_core.provenance import provenance

Scores = list[float]  # one a seed, in 0..1
_BUDGETS: dict[Budget, str] = {"steps": "equal gradient steps", "bytes": "equal bytes"}


def report(settings: UnseenSettings, outcome: Outcome, out: Path) -> Result:
    """Everything that a reader is shown; plots are written to out. Raises OutputError."""
    claims = [_claim(settings, outcome, claim) for claim in settings.claims]
    pictures: dict[str, Path] = {}
    tables: dict[str, Rows] = {}
    if claims:
        tables["What was hoped for, in points; the best rival is the one of the best mean"] = (
            _claim_rows(claims)
        )
    for group in settings.groups:
        pictures |= _pictures(settings, outcome, group, out)
        for budget in group.budgets:
            tables[f"{group.title}; {_BUDGETS[budget]}"] = group_rows(
                settings, outcome, group, budget
            )
        if group.against is not None:
            title = f"{group.title}: differences from {settings.variants[group.against].title}"
            tables[f"{title}, seed by seed, mean (least to greatest)"] = difference_rows(
                settings, outcome, group
            )
        if group.curves:
            tables[f"{group.title}: what it cost"] = cost_rows(settings, outcome, group)
        similar = similarity_rows(settings, outcome, group)
        if len(similar) > 1:
            tables[f"{group.title}: similarity (EMD) of experts in the last round"] = similar
    tables["Told apart by mean and variance of grey level alone"] = grey_rows(outcome.grey)
    tables["Learning rates chosen: for the head / for the features"] = rate_rows(settings, outcome)
    return Result(
        report={
            "study": settings.study,
            "claims": claims,
            "groups": {
                group.name: _group_json(settings, outcome, group) for group in settings.groups
            },
            "cells": [
                {**asdict(key), **asdict(cell)} for key, cell in sorted(outcome.results.items())
            ],
            "grey_levels": outcome.grey,
            "seconds": sum(cell.seconds for cell in outcome.results.values()),
            "provenance": provenance(settings),
        },
        title="Kinds of image that only one silo has",
        text=_text(settings, outcome),
        tables=tables,
        pictures=pictures,
    )


def scores(
    outcome: Outcome, group: GroupSettings, place: Place, measure: Measure, budget: Budget
) -> dict[int, float]:
    """By seed, what the cells of one place say; failed ones are left out."""
    found = {}
    rate = outcome.rates[place, measure]
    for seed in group.seeds:
        cell = outcome.results[Key(*place, rate, seed, group.split)]
        value = (cell.end if budget == "steps" else cell.at_bytes).get(measure)
        if value is not None:
            found[seed] = value
    return found


def group_rows(
    settings: UnseenSettings, outcome: Outcome, group: GroupSettings, budget: Budget
) -> Rows:
    """Mean ± deviation over seeds, in points of 100; the number of seeds where some failed."""
    header = ("with", *_column_titles(group, budget))
    body = [
        (
            settings.variants[variant].title,
            *(
                _cell_text(scores(outcome, group, (variant, p, e), measure, budget), group)
                for p, e, measure in _columns(group, budget)
            ),
        )
        for variant in group.variants
    ]
    return [header, *body]


def difference_rows(settings: UnseenSettings, outcome: Outcome, group: GroupSettings) -> Rows:
    """Against one variant, in points, seeds paired."""
    assert group.against is not None
    body: list[tuple[str, ...]] = []
    for variant in group.variants:
        if variant == group.against:
            continue
        texts = []
        for p, e, measure in _columns(group, "steps"):
            own = scores(outcome, group, (variant, p, e), measure, "steps")
            base = scores(outcome, group, (group.against, p, e), measure, "steps")
            apart = [100 * (own[s] - base[s]) for s in group.seeds if s in own and s in base]
            texts.append(_range_text(apart))
        body.append((settings.variants[variant].title, *texts))
    return [("with", *_column_titles(group, "steps")), *body]


def cost_rows(settings: UnseenSettings, outcome: Outcome, group: GroupSettings) -> Rows:
    """Means over seeds at the first p and E of the group; 'to 90 %' is the first measured round
    in which the LDA head has nine tenths of what it has at the end of the best variant."""
    p, e = group.unseen[0], group.local_steps[0]
    cells = {v: _cells(outcome, group, (v, p, e), "lda") for v in group.variants}
    ends = [np.mean([c.end["lda"] for c in found]) for found in cells.values() if found]
    goal = 0.9 * float(max(ends, default=0.0))
    header = ("with", "rounds", "steps a silo", "MB", "simulated s", "MB to 90 %", "s to 90 %")
    body: list[tuple[str, ...]] = []
    for variant, found in cells.items():
        curves = [cell.curve for cell in found if cell.curve]
        if not curves:
            continue
        last = [curve[-1] for curve in curves]
        reached = [next((x for x in curve if x["lda"] >= goal), None) for curve in curves]
        there = [x for x in reached if x is not None]
        everywhere = len(there) == len(curves)
        body.append(
            (
                settings.variants[variant].title,
                f"{np.mean([x['round'] for x in last]):.0f}",
                f"{np.mean([x['steps'] for x in last]):.0f}",
                f"{np.mean([x['bytes'] for x in last]) / 1e6:.1f}",
                f"{np.mean([x['simulated_ms'] for x in last]) / 1e3:.1f}",
                f"{np.mean([x['bytes'] for x in there]) / 1e6:.1f}" if everywhere else "-",
                f"{np.mean([x['simulated_ms'] for x in there]) / 1e3:.1f}" if everywhere else "-",
            )
        )
    return [header, *body]


def similarity_rows(settings: UnseenSettings, outcome: Outcome, group: GroupSettings) -> Rows:
    """EMD of experts that honest and that hostile silos trained, where there are both."""
    rows: list[tuple[str, ...]] = [("with", "p", "E", "of honest silos", "of hostile silos")]
    for variant in group.variants:
        for p in group.unseen:
            for e in group.local_steps:
                found = [c.similarity for c in _cells(outcome, group, (variant, p, e), "lda")]
                honest = [s["honest"] for s in found if "honest" in s]
                hostile = [s["hostile"] for s in found if "hostile" in s]
                if honest and hostile:
                    title = settings.variants[variant].title
                    texts = (_plain_text(honest), _plain_text(hostile))
                    rows.append((title, f"{p:.3g}", str(e), *texts))
    return rows


def grey_rows(grey: Mapping[str, Any]) -> Rows:
    """A row a kind of image, then all."""
    rows: list[tuple[str, ...]] = [("kind", "told", "grey level", "deviation within an image")]
    for kind, found in grey["kinds"].items():
        told = f"{100 * found['accuracy']:.0f}"
        rows.append((kind, told, f"{found['mean']:.0f}", f"{found['deviation']:.0f}"))
    chance = 100 / max(len(grey["kinds"]), 1)
    rows.append((f"all (chance {chance:.0f})", f"{100 * grey['accuracy']:.0f}", "", ""))
    return rows


def rate_rows(settings: UnseenSettings, outcome: Outcome) -> Rows:
    """A row a variant; columns are p and E."""
    places = sorted({(p, e) for (_, p, e), _ in outcome.rates})
    rows: list[tuple[str, ...]] = [("with", *(f"p {p:.3g}, E {e}" for p, e in places))]
    for name, variant in settings.variants.items():
        if variant.untrained:
            continue
        texts = []
        for p, e in places:
            chosen = [outcome.rates.get(((name, p, e), m)) for m in ("head", "lda")]
            texts.append(" / ".join(f"{c:g}" for c in chosen if c is not None) or "-")
        if any(text != "-" for text in texts):
            rows.append((variant.title, *texts))
    return rows


def _claim(settings: UnseenSettings, outcome: Outcome, claim: ClaimSettings) -> dict[str, Any]:
    group = next(group for group in settings.groups if group.name == claim.group)

    def of(variant: str) -> dict[int, float]:
        place = (variant, claim.unseen, claim.local_steps)
        return scores(outcome, group, place, claim.measure, claim.budget)

    own = of(claim.variant)
    rivals = {rival: found for rival in claim.rivals if (found := of(rival))}
    row: dict[str, Any] = {**claim.model_dump(), "best_rival": None, "margin": None, "met": None}
    if not own or not rivals:
        return row
    best = max(rivals, key=lambda rival: np.mean(list(rivals[rival].values())))
    apart = [100 * (own[s] - rivals[best][s]) for s in own if s in rivals[best]]
    if not apart:
        return row
    margin = float(np.mean(apart))
    met = margin >= claim.at_least
    return {**row, "best_rival": best, "margin": margin, "by_seed": apart, "met": met}


def _claim_rows(claims: Sequence[Mapping[str, Any]]) -> Rows:
    rows: list[tuple[str, ...]] = [("hoped for", "best rival", "at least", "margin", "")]
    for claim in claims:
        measured = "-" if claim["margin"] is None else _range_text(claim["by_seed"])
        met = {True: "met", False: "missed", None: "not measured"}[claim["met"]]
        rival = claim["best_rival"] or "-"
        rows.append((claim["text"], rival, f"{claim['at_least']:+g}", measured, met))
    return rows


def _group_json(
    settings: UnseenSettings, outcome: Outcome, group: GroupSettings
) -> list[dict[str, Any]]:
    rows = []
    for budget in group.budgets:
        for variant in group.variants:
            for p, e, measure in _columns(group, budget):
                found = scores(outcome, group, (variant, p, e), measure, budget)
                values = list(found.values())
                rows.append(
                    {
                        "budget": budget,
                        "variant": variant,
                        "unseen": p,
                        "local_steps": e,
                        "measure": measure,
                        "mean": float(np.mean(values)) if values else None,
                        "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                        "by_seed": found,
                    }
                )
    return rows


def _pictures(
    settings: UnseenSettings, outcome: Outcome, group: GroupSettings, out: Path
) -> dict[str, Path]:
    """Plots against p and E where the group has several, against rounds and bytes if asked."""
    pictures: dict[str, Path] = {}
    heads: list[Measure] = [m for m in group.measures if m in ("head", "lda")]
    first_p, first_e = group.unseen[0], group.local_steps[0]

    def against(what: str, xs: Sequence[float], places: Sequence[tuple[float, int]]) -> None:
        panels = []
        for measure in heads:
            curves = []
            for variant in group.variants:
                ys = [scores(outcome, group, (variant, *at), measure, "steps") for at in places]
                curves.append(_curve(settings, variant, xs, [list(y.values()) for y in ys]))
            panels.append(Panel(TITLES[measure], curves))
        path = out / f"{group.name}_{'p' if what.startswith('un') else 'E'}.png"
        draw_panels(panels, what, path, logarithmic=not what.startswith("un"))
        pictures[f"{group.title}: against {what}; mean and range over seeds"] = path

    if len(group.unseen) > 1 and heads:
        places = [(p, first_e) for p in group.unseen]
        against("unseen proportion p", group.unseen, places)
    if len(group.local_steps) > 1 and heads:
        against("E, steps at home", group.local_steps, [(first_p, e) for e in group.local_steps])
    if group.curves and heads:
        for what, key, scale in (("rounds", "round", 1.0), ("MB sent", "bytes", 1e-6)):
            panels = []
            for measure in heads:
                curves = []
                for variant in group.variants:
                    cells = _cells(outcome, group, (variant, first_p, first_e), measure)
                    found = [cell.curve for cell in cells if cell.curve]
                    if not found or (key == "bytes" and not found[0][-1]["bytes"]):
                        continue
                    points = list(zip(*found, strict=False))
                    xs = [float(np.mean([x[key] for x in point])) * scale for point in points]
                    ys = [[x[measure] for x in point] for point in points]
                    curves.append(_curve(settings, variant, xs, ys))
                panels.append(Panel(TITLES[measure], curves))
            path = out / f"{group.name}_{key}.png"
            draw_panels(panels, what, path, logarithmic=True)
            at = f"p = {first_p:.3g}, E = {first_e}"
            pictures[f"{group.title}: against {what} ({at}); mean and range over seeds"] = path
    return pictures


def _curve(
    settings: UnseenSettings, variant: str, xs: Sequence[float], ys: Sequence[Scores]
) -> Curve:
    number = list(settings.variants).index(variant)
    return Curve(settings.variants[variant].title, number, xs, ys)


def _cells(
    outcome: Outcome, group: GroupSettings, place: Place, measure: Measure
) -> list[CellResult]:
    """Those that did not fail."""
    rate = outcome.rates[place, measure]
    cells = [outcome.results[Key(*place, rate, seed, group.split)] for seed in group.seeds]
    return [cell for cell in cells if not cell.failed]


def _columns(group: GroupSettings, budget: Budget) -> list[tuple[float, int, Measure]]:
    """Of 'silos', there is no figure where the bytes were spent."""
    measures = [m for m in group.measures if budget == "steps" or m != "silos"]
    return [(p, e, m) for p in group.unseen for e in group.local_steps for m in measures]


def _column_titles(group: GroupSettings, budget: Budget) -> list[str]:
    titles = []
    for p, e, measure in _columns(group, budget):
        places = [f"p {p:.3g}"] if len(group.unseen) > 1 else []
        places += [f"E {e}"] if len(group.local_steps) > 1 else []
        titles.append(", ".join([*places, TITLES[measure]]))
    return titles


def _cell_text(found: Mapping[int, float], group: GroupSettings) -> str:
    values = [100 * value for value in found.values()]
    if not values:
        return "-"
    text = f"{np.mean(values):.1f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.1f}"
    return text if len(values) == len(group.seeds) else f"{text} ({len(values)} seeds)"


def _range_text(points: Sequence[float]) -> str:
    if not points:
        return "-"
    if len(points) == 1:
        return f"{points[0]:+.1f}"
    return f"{np.mean(points):+.1f} ({min(points):+.1f} to {max(points):+.1f})"


def _plain_text(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else "-"


def _text(settings: UnseenSettings, outcome: Outcome) -> str:
    base = pretrain_settings(settings, Key(settings.bytes_of, 1.0, 1, 0.1, 0, "test"))
    tuning = settings.tuning
    trained = [cell for cell in outcome.results.values() if cell.rounds]
    hours = sum(cell.seconds for cell in outcome.results.values()) / 3600
    failed = sum(bool(cell.failed) for cell in outcome.results.values())
    return f"""\
{len(trained)} trainings of `{base.architecture}`, {hours:.1f} h summed over {settings.workers} \
at a time; {failed} came to nothing. All begin from one Θ_0, which the seed draws; seeds also \
draw who holds what. Measured is Θ, the average of the (honest) silos, on images of all corpora \
that no training saw: accuracy is balanced over kinds, in points, mean ± deviation over seeds.

**Fair.** Learning rates {", ".join(f"{rate:g}" for rate in tuning.rates)} for every variant that \
does not take another's, chosen on seed{"s" if len(tuning.seeds) > 1 else ""} \
{", ".join(map(str, tuning.seeds))} and the validation images, which no test table sees; one \
choice by the own head, one by the LDA head for all columns of features. Equal gradient steps: \
{settings.steps} a silo, at home, overseas and in distillation together. Equal bytes: each is \
read where it has sent what *{settings.variants[settings.bytes_of].title}* sends within these \
steps; who sends less in all is read at its end.

**Heads and probes.** *Own head*: the network as trained. *LDA head*: a linear discriminant from \
class statistics pooled over silos, on the frozen features, the same for all. *Linear*, *kNN*: \
probes fitted on the union of {settings.probes.images} training images a corpus. *Wires*: average \
precision of the instruments' pixels in simulated frames, by a decoder of one hidden layer on the \
frozen dense maps; chance is their share, a few points.

**Privacy.** The LDA head shares counts, sums and the pooled covariance of features by kind of \
image, and prototypes share their means and variances: more than weights. Rows without them share \
weights alone. Probes are measurements: they see the union, and are no way of training."""
