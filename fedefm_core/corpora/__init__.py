# SPDX-License-Identifier: Apache-2.0
"""Corpora of images, who holds them, and what is wrong with them."""

from fedefm_core.corpora.adapters import ADAPTERS
from fedefm_core.corpora.check import check_corpora
from fedefm_core.corpora.corpus import Corpus, CorpusSample, gather, load_corpora
from fedefm_core.corpora.listing import Listing, Sample, list_corpora
from fedefm_core.corpora.manifest import (
    CorpusSettings,
    Manifest,
    PartitionSettings,
    label_names,
    load_manifest,
)
from fedefm_core.corpora.partition import SiloData, describe_silos, partition, silos_of
from fedefm_core.corpora.records import SPLITS, DataSet, Record, Split

__all__ = [
    "ADAPTERS",
    "SPLITS",
    "Corpus",
    "CorpusSample",
    "CorpusSettings",
    "DataSet",
    "Listing",
    "Manifest",
    "PartitionSettings",
    "Record",
    "Sample",
    "SiloData",
    "Split",
    "check_corpora",
    "describe_silos",
    "gather",
    "label_names",
    "list_corpora",
    "load_corpora",
    "load_manifest",
    "partition",
    "silos_of",
]
