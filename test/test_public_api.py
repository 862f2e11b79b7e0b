# SPDX-License-Identifier: Apache-2.0
"""The public face of each package, pinned: a name joins or leaves it only with this table."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import fedefm_core

pytestmark = pytest.mark.packaging

PUBLIC = {
    "fedefm_core.cli": "app main",
    "fedefm_core.corpora": """
        ADAPTERS SPLITS Corpus CorpusSample CorpusSettings DataSet Listing Manifest
        PartitionSettings Record Sample SiloData Split check_corpora describe_silos gather
        label_names list_corpora load_corpora load_manifest partition silos_of
    """,
    "fedefm_core.emd": "TransportError entropic exact similarity",
    "fedefm_core.evaluation": "",
    "fedefm_core.experiments": "",
    "fedefm_core.export": "",
    "fedefm_core.federation": "",
    "fedefm_core.finetuning": """
        ClassificationSettings DistillSettings FinetuneSettings distill finetune load_run_settings
    """,
    "fedefm_core.frames": """
        Frame FrameLimits FrameSource Spacing Window open_source to_grey8
    """,
    "fedefm_core.models": "",
    "fedefm_core.networks": """
        ARCHITECTURES build_network load_network load_segmenter load_weights
        read_weights_header save_weights
    """,
    "fedefm_core.perception": """
        BACKGROUND CATHETER CLASS_NAMES GUIDEWIRE INSTRUMENT_KINDS
        Instrument InstrumentSettings ModelMetadata NetworkOutput Perception PerceptionSettings
        Runtime Segmenter TipSettings TrackPhase Tracker TrackerSettings TrackingState
        draw_overlay find_instruments open_runtime read_metadata resolve_model shipped_models
    """,
    "fedefm_core.simulation": """
        KINDS InstrumentTruth SimulatedFrame SimulationSettings simulate_frame simulate_sequence
    """,
}
NEEDS_TORCH = {"fedefm_core.emd", "fedefm_core.networks", "fedefm_core.finetuning"}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names(package: str) -> None:
    if package in NEEDS_TORCH:
        pytest.importorskip("torch", reason="needs the extra 'train'")
    module = importlib.import_module(package)
    public = getattr(module, "__all__", [])
    assert sorted(public) == sorted(PUBLIC[package].split())
    assert all(hasattr(module, name) for name in public)


def test_no_package_is_forgotten() -> None:
    packages = {
        f"fedefm_core.{found.name}"
        for found in pkgutil.iter_modules(fedefm_core.__path__)
        if found.ispkg
    }
    assert packages == PUBLIC.keys()
