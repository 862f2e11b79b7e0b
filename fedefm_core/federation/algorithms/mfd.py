# SPDX-License-Identifier: Apache-2.0
"""Multishot Foundation Federated Distillation (MFD), in parts that switch on and off.

T. Do et al., FedEFM: Federated Endovascular Foundation Model with Unseen Data, 2025, equations
(1), (2) and (11). Round 0 is training at home. In every later round, from the weights that all
silos held when it began:

1. overseas training: θ_i goes to each neighbour j, is trained there, and comes home as θ̂_{i→j};
   at j it is a guest;
2. training at home;
3. distillation at home from the experts (distillation.py);
4. merging: θ_i ← (1 − e − g) θ_i + e · mean_j θ̂_{i→j} + g · mean_j θ̂_{j→i}, the second mean
   being over the guests that were trained here.

Only 4 brings parameters of one silo to another, and of it only g: without merging, what j knows
reaches i as an expert's opinion of ξ_i alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from fedefm_core.config import Settings
from fedefm_core.federation.algorithms.fedavg import exchange_prototypes
from fedefm_core.federation.carrier import Carrier
from fedefm_core.federation.cycle_time import mfd_round_ms
from fedefm_core.federation.distillation import DistillationSettings
from fedefm_core.federation.schedule import Roads, Schedule
from fedefm_core.federation.silo import Task

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The equations as they are printed: no training at home after round 0, no merging, the sums
    # over j of both (2) and (11). EMD multiplies the gradient there, so it is not differentiated.
    "literal": {
        "home_training": False,
        "merge_experts": 0.0,
        "merge_guests": 0.0,
        "distillation": {"scope": "all", "weight": "detached", "sum": "double"},
    },
    # What the public reference code does: no distillation, half one's own and half the experts.
    "reference": {"distil_steps": 0, "merge_experts": 0.5, "merge_guests": 0.0},
}


class MfdSettings(Settings):
    """preset: values that those given here override; see PRESETS.

    home_training: E steps at home in every round, not in round 0 alone. overseas_steps,
    distil_steps: None: E, as at home; 0 turns the part off. merge_experts, merge_guests: e and g.
    overseas_proximal: μ of a pull of the guest to the weights that came. overseas_guard: weight of
    its distillation from them (Z. Li and D. Hoiem, Learning without Forgetting, ECCV 2016).
    overseas_rate, distil_rate: factors on the learning rate.
    """

    name: Literal["mfd"] = "mfd"
    preset: Literal["default", "literal", "reference"] = "default"
    home_training: bool = True
    overseas_steps: int | None = Field(None, ge=0)
    distil_steps: int | None = Field(None, ge=0)
    distillation: DistillationSettings = DistillationSettings()
    merge_experts: float = Field(1 / 3, ge=0, le=1)
    merge_guests: float = Field(1 / 3, ge=0, le=1)
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
        carrier.visit(schedule.joined().active(round), task)
    if settings.home_training:
        carrier.train_local(at_home)
    if distil_steps:
        carrier.distil(distil_steps, settings.distillation, rate * settings.distil_rate)
    carrier.mix(lambda silo, slots: merge_shares(settings, slots))


def round_ms(settings: MfdSettings, schedule: Schedule, roads: Roads, round: int) -> float:
    """Simulated time of a round: models pay the road out and home."""
    overseas, distil_steps = _steps(settings, schedule)
    if round == 0:
        return schedule.local_steps * roads.step_ms
    at_home = schedule.local_steps * settings.home_training + distil_steps
    links = schedule.joined().active(round) if overseas else ()
    return mfd_round_ms(links, roads.network, roads.computing(at_home, overseas))


def merge_shares(settings: MfdSettings, slots: Sequence[str]) -> dict[str, float]:
    """e and g, spread over the experts and guests that there are."""
    shares: dict[str, float] = {}
    for kind, part in (("expert", settings.merge_experts), ("guest", settings.merge_guests)):
        of_kind = [slot for slot in slots if slot.startswith(f"{kind}/")]
        shares.update({slot: part / len(of_kind) for slot in of_kind if part})
    return shares


def _steps(settings: MfdSettings, schedule: Schedule) -> tuple[int, int]:
    """Steps overseas, and of distillation; without experts there is none."""
    own = schedule.local_steps
    overseas = own if settings.overseas_steps is None else settings.overseas_steps
    distil = own if settings.distil_steps is None else settings.distil_steps
    return overseas, distil if overseas else 0
