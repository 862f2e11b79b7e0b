# SPDX-License-Identifier: Apache-2.0
"""Multishot Foundation Federated Distillation (MFD), in parts that switch on and off.

T. Do et al., FedEFM: Federated Endovascular Foundation Model with Unseen Data, 2025, equations
(1), (2) and (11). Round 0 is training at home. In every later round, from the weights that all
silos held when it began:

1. overseas training: θ_i goes to each neighbour j, is trained there, and comes home as the expert
   θ̂_{i→j}; at j it is a guest. The road home is paid for, so the expert brings a share h of its
   host along: E_ij = θ̂_{i→j} + h (θ_j − θ_i), all that it learned and a part of θ_j;
2. merging: θ_i ← (1 − e − g) θ_i + e · mean_j E_ij + g · mean_j θ̂_{j→i}, the second mean being
   over the guests that were trained here;
3. distillation at home from the experts (distillation.py).

Without merging, what j knows reaches i as an expert's opinion of ξ_i alone. With it, weights mix
by W = (1 − e h − g) I + e h H + g G, H and G being the means over hosts and over guests; where
all silos have as many hosts as guests, as on a ring, W is doubly stochastic and Θ keeps its mean.
With e + g = 1 every step taken overseas counts whole in Θ. e = 2/3, h = 1/2, g = 1/3 is the mean
of oneself, host and guest: on a ring of six its second eigenvalue is 2/3, that of gossip 0.87.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from fedefm_core.config import Settings
from fedefm_core.federation.algorithms.fedavg import exchange_prototypes
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.cycle_time import mfd_round_ms
from fedefm_core.federation.distillation import LEAST_SIMILARITY, DistillationSettings
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.silo import Task

MergeWeight = Literal["none", "emd", "sharpened", "uniform", "inverse"]

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The equations as they are printed: no training at home after round 0, no merging, the sums
    # over j of both (2) and (11). EMD multiplies the gradient there, so it is not differentiated.
    "literal": {
        "split": False,
        "host_share": 0.0,
        "merge_experts": 0.0,
        "merge_guests": 0.0,
        "distillation": {"scope": "all", "weight": "detached", "sum": "double"},
    },
    # What the public reference code does: no distillation, half one's own, trained at home
    # meanwhile, and half the experts.
    "reference": {
        "split": False,
        "home_training": True,
        "merge": "last",
        "distil_steps": 0,
        "host_share": 0.0,
        "merge_experts": 0.5,
        "merge_guests": 0.0,
    },
}


class MfdSettings(Settings):
    """preset: values that those given here override; see PRESETS.

    split: the E steps of a round are shared out, the larger half overseas and the rest to
    distillation; else each has E. overseas_steps, distil_steps: given, these instead; 0 turns the
    part off. home_training: E steps at home in every round, not in round 0 alone. merge: first,
    before home training and distillation, or last, when it averages what these did with what the
    experts learned meanwhile. host_share, merge_experts, merge_guests: h, e and g. merge_weight:
    of each expert and guest in its mean, by its EMD on images of the silo, see merge_shares;
    merge_sharpness: τ of it. overseas_proximal: μ of a pull of the guest to the weights that came.
    overseas_guard: weight of its distillation from them (Z. Li and D. Hoiem, Learning without
    Forgetting, ECCV 2016). overseas_rate, distil_rate: factors on the learning rate.
    """

    name: Literal["mfd"] = "mfd"
    preset: Literal["default", "literal", "reference"] = "default"
    split: bool = True
    home_training: bool = False
    overseas_steps: int | None = Field(None, ge=0)
    distil_steps: int | None = Field(None, ge=0)
    distillation: DistillationSettings = DistillationSettings()
    merge: Literal["first", "last"] = "first"
    host_share: float = Field(1 / 2, ge=0, le=1)
    merge_experts: float = Field(2 / 3, ge=0, le=1)
    merge_guests: float = Field(1 / 3, ge=0, le=1)
    merge_weight: MergeWeight = "none"
    merge_sharpness: float = Field(0.05, gt=0)
    overseas_proximal: float = Field(0.0, ge=0)
    overseas_guard: float = Field(0.0, ge=0)
    overseas_rate: float = Field(1.0, gt=0)
    distil_rate: float = Field(1.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        preset = PRESETS.get(str(values.get("preset", "default")), {})
        merged = {**preset, **values}
        if isinstance(values.get("distillation"), Mapping):
            merged["distillation"] = {**preset.get("distillation", {}), **values["distillation"]}
        return merged

    @model_validator(mode="after")
    def _shares(self) -> MfdSettings:
        if self.merge_experts + self.merge_guests > 1 + 1e-9:
            raise ValueError("'merge_experts' and 'merge_guests' must not exceed 1 together")
        return self


def train_round(settings: MfdSettings, carrier: Carrier, schedule: Schedule, round: int) -> None:
    """One round, all silos at once."""
    rate = schedule.rate(round)
    at_home = Task(schedule.local_steps, rate=rate)
    if round == 0:
        carrier.train_local(at_home)
        return
    exchange_prototypes(carrier, schedule, round)
    overseas, distil_steps = _steps(settings, schedule)
    if overseas:
        task = Task(
            overseas,
            proximal=settings.overseas_proximal,
            guard=settings.overseas_guard,
            rate=rate * settings.overseas_rate,
        )
        links = schedule.joined().active(round)
        carrier.visit(links, task, host_share=settings.host_share)
    if settings.merge == "first":
        _merge(settings, carrier)
    if settings.home_training:
        carrier.train_local(at_home)
    if distil_steps:
        carrier.distil(distil_steps, settings.distillation, rate * settings.distil_rate)
    if settings.merge == "last":
        _merge(settings, carrier)


def round_ms(settings: MfdSettings, schedule: Schedule, roads: Roads, round: int) -> float:
    """Simulated time of a round: models pay the road out and home."""
    overseas, distil_steps = _steps(settings, schedule)
    if round == 0:
        return schedule.local_steps * roads.step_ms
    at_home = schedule.local_steps * settings.home_training + distil_steps
    links = schedule.joined().active(round) if overseas else ()
    return mfd_round_ms(links, roads.network, roads.computing(at_home, overseas))


def merge_shares(
    settings: MfdSettings, slots: Sequence[str], similarity: Mapping[str, float]
) -> dict[str, float]:
    """Of each expert and guest: e or g, over their number, times ω. What that lacks of 1 stays
    with the silo's own weights.

    similarity: S of each slot to the silo's own weights; read unless merge_weight is none, which
    is ω = 1. emd: ω = S. sharpened: ω = exp((S − max S) / τ), so that the one most alike keeps
    its share and a stranger loses it. uniform and inverse: controls with the sum of the
    sharpened, equal and as 1 / S.
    """
    parts = {"expert": settings.merge_experts, "guest": settings.merge_guests}
    kinds = {slot: slot.partition("/")[0] for slot in slots}
    counts = Counter(kinds.values())
    shares = {slot: parts[kind] / counts[kind] for slot, kind in kinds.items() if parts.get(kind)}
    if settings.merge_weight == "none" or not shares:
        return shares
    omega = _omega(settings, {slot: similarity[slot] for slot in shares})
    return {slot: share * omega[slot] for slot, share in shares.items()}


def _omega(settings: MfdSettings, similarity: Mapping[str, float]) -> dict[str, float]:
    if settings.merge_weight == "emd":
        return {slot: max(value, 0.0) for slot, value in similarity.items()}
    most, sharpness = max(similarity.values()), settings.merge_sharpness
    sharp = {slot: math.exp((value - most) / sharpness) for slot, value in similarity.items()}
    if settings.merge_weight == "sharpened":
        return sharp
    total = sum(sharp.values())
    if settings.merge_weight == "uniform":
        return dict.fromkeys(sharp, total / len(sharp))
    inverse = {slot: 1 / max(value, LEAST_SIMILARITY) for slot, value in similarity.items()}
    return {slot: total * value / sum(inverse.values()) for slot, value in inverse.items()}


def _merge(settings: MfdSettings, carrier: Carrier) -> None:
    similarity: Mapping[str, Mapping[str, float]] = {}
    if settings.merge_weight != "none":
        similarity = carrier.compare(("expert/", "guest/"), settings.distillation)
    carrier.mix(lambda silo, slots: merge_shares(settings, slots, similarity.get(silo, {})))


def _steps(settings: MfdSettings, schedule: Schedule) -> tuple[int, int]:
    """Steps overseas, and of distillation; without experts there is none."""
    own = schedule.local_steps
    overseas, distil = ((own + 1) // 2, own // 2) if settings.split else (own, own)
    if settings.overseas_steps is not None:
        overseas = settings.overseas_steps
    if settings.distil_steps is not None:
        distil = settings.distil_steps
    return overseas, distil if overseas else 0
