# SPDX-License-Identifier: Apache-2.0
"""One adapter a layout: folder -> DataSet. docs/corpora.md draws the layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fedefm_core.corpora.adapters.angiography import arcade
from fedefm_core.corpora.adapters.chest import ranzcr_clip
from fedefm_core.corpora.adapters.coco import coco
from fedefm_core.corpora.adapters.instruments import cathaction, eianimal, eiphantom, eisimulation
from fedefm_core.corpora.adapters.pictures import pictures
from fedefm_core.corpora.adapters.retina import chase_db1, drive
from fedefm_core.corpora.adapters.volumes import decathlon, sennet, vessel12
from fedefm_core.corpora.records import DataSet

Adapter = Callable[[Path], DataSet]

ADAPTERS: Mapping[str, Adapter] = {
    "arcade": arcade,
    "cathaction": cathaction,
    "chase_db1": chase_db1,
    "coco": coco,
    "decathlon": decathlon,
    "drive": drive,
    "eianimal": eianimal,
    "eiphantom": eiphantom,
    "eisimulation": eisimulation,
    "pictures": pictures,
    "ranzcr_clip": ranzcr_clip,
    "sennet": sennet,
    "vessel12": vessel12,
}
