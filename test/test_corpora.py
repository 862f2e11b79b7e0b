# SPDX-License-Identifier: Apache-2.0
"""Manifests, splits, partition into silos, and corpora as arrays."""

import logging
import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from corpora_trees import TREES, box, picture, write
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.corpora import (
    SPLITS,
    CorpusSettings,
    Listing,
    Manifest,
    PartitionSettings,
    Sample,
    gather,
    label_names,
    list_corpora,
    load_corpora,
    load_manifest,
    partition,
    silos_of,
)
from fedefm_core.corpora.corpus import cache_file, default_cache, shrink_image, shrink_mask
from fedefm_core.corpora.manifest import SplitSettings
from fedefm_core.corpora.simulated import SIMULATED, draw_simulated
from fedefm_core.corpora.splits import assign_splits
from fedefm_core.errors import FrameError, ManifestError, OutputError

REPOSITORY = Path(__file__).resolve().parents[1]


def write_manifest(folder, text):
    path = folder / "corpora.yaml"
    path.write_text(text)
    return path


def listing(name, count, label=None, groups=None):
    """A corpus of training samples, each a group of its own, or dealt into groups."""
    group_of = [f"{name}:{i if groups is None else i % groups}" for i in range(count)]
    samples = [Sample(None, i, group, "train") for i, group in enumerate(group_of)]
    return Listing(name, 0, label or name, ("background",), samples, "simulated:human")


def listings(count, size=24):
    return {f"c{i}": listing(f"c{i}", size) for i in range(count)}


# --- manifests ---------------------------------------------------------------------------------


def test_the_embedded_manifest_needs_no_files():
    manifest = load_manifest()
    assert list(label_names(manifest)) == [
        *("human", "animal", "phantom", "simulation", "angiography", "retina")
    ]
    found = list_corpora(manifest)
    assert {name: len(corpus) for name, corpus in found.items()} == dict.fromkeys(found, 400)
    assert found["human"].counts() == {"train": 280, "validation": 40, "test": 80}


def test_settings_of_the_embedded_manifest_can_be_overridden():
    manifest = load_manifest(overrides=["corpora.human.count=20", "partition.unseen=0"])
    assert [len(corpus) for corpus in list_corpora(manifest).values()] == [20] + [400] * 5
    assert manifest.partition.unseen == 0


def test_paths_start_from_the_folder_of_the_manifest(tmp_path, monkeypatch):
    TREES["drive"](tmp_path / "data" / "DRIVE")
    path = write_manifest(tmp_path, "root: data\ncorpora: {d: {adapter: drive, path: DRIVE}}\n")
    monkeypatch.chdir("/")
    manifest = load_manifest(path)
    assert manifest.path_of("d") == tmp_path / "data" / "DRIVE"
    assert len(list_corpora(manifest)["d"]) == 7


def test_two_corpora_may_be_of_one_kind(tmp_path):
    for name in ("drive", "chase_db1"):
        TREES[name](tmp_path / name)
    text = """
    labels: [retina, human]
    corpora:
      a: {adapter: drive, path: drive, label: retina}
      b: {adapter: chase_db1, path: chase_db1, label: retina}
      human: {adapter: "simulated:human", count: 10}
    """
    found = list_corpora(load_manifest(write_manifest(tmp_path, text)))
    assert {name: corpus.label for name, corpus in found.items()} == {"a": 0, "b": 0, "human": 1}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("siz: 64", "'siz' is no known setting; did you mean 'size'?"),
        ("size: big", "'size'"),
        ("corpora: {a: {adapter: drve, path: x}}", "'corpora.a.adapter' must be one of .*'drive'"),
        ("corpora: {a: {adaptr: drive}}", "corpora.a: .*'adaptr' is no known.*'adapter'"),
        ("corpora: {a: {adapter: drive, path: x, splits: {tst: 1}}}", "tst.*'test'"),
        ("partition: {unsen: 1}", "'partition.unsen' is no known setting.*'unseen'"),
        ("partition: {unseen: 1.5}", "'partition.unseen'.*1.5"),
        ("corpora: {a: {adapter: drive}}", "'corpora.a' needs a 'path'"),
        ("corpora: {a: drive}", "corpora.a: expected a mapping"),
        ("corpora: {}", "'corpora'"),
        ('corpora: {"a b": {adapter: "simulated:human"}}', "a b"),
        ('labels: [x]\ncorpora: {a: {adapter: "simulated:human"}}', "'corpora.a.label'.* 'a'"),
        ('labels: [x, x]\ncorpora: {x: {adapter: "simulated:human"}}', "names one label twice"),
        ("silos: {one: []}", "the silo 'one' is empty"),
        ("silos: {}", "'silos' names none"),
        ("silos: {one: [humen]}", "'silos.one' must be one of .* did you mean 'human'"),
        ("size: [", "not valid YAML"),
        ("- a", "must hold a mapping"),
    ],
)
def test_a_wrong_manifest_is_told_by_a_sentence(text, sentence, tmp_path):
    with pytest.raises(ManifestError, match=sentence) as told:
        load_manifest(write_manifest(tmp_path, text))
    assert "corpora.yaml" in str(told.value)


def test_a_missing_manifest(tmp_path):
    with pytest.raises(ManifestError, match=r"nowhere\.yaml"):
        load_manifest(tmp_path / "nowhere.yaml")


def test_a_missing_path(tmp_path):
    path = write_manifest(tmp_path, "corpora: {a: {adapter: drive, path: DRIVE}}")
    with pytest.raises(ManifestError, match=f"'a' does not exist: {tmp_path}/DRIVE"):
        list_corpora(load_manifest(path))


def test_a_stand_in_where_the_files_are_not(tmp_path, caplog):
    text = (
        "corpora: {eye: {adapter: drive, path: D, fallback: 'simulated:retina', count: 10}}\n"
        "size: 32\n"
    )
    manifest = load_manifest(write_manifest(tmp_path, text))
    assert list_corpora(manifest)["eye"].drawn_by == "simulated:retina"
    assert "stands in" in caplog.text
    TREES["drive"](tmp_path / "D")
    assert list_corpora(manifest)["eye"].drawn_by is None


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("corpora*.yaml")))
def test_the_examples_are_valid(path):
    assert load_manifest(path).corpora


# --- splits ------------------------------------------------------------------------------------

GROUPS = st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=40).map(
    lambda some: ["a", "b", "c", *some]
)


@settings(max_examples=40)
@given(GROUPS, st.floats(0.01, 0.5), st.floats(0.01, 0.4), st.integers(0, 2**32 - 1))
def test_groups_are_never_divided(groups, test, validation, seed):
    shares = SplitSettings(test=test, validation=validation)
    splits = assign_splits(groups, [None] * len(groups), shares, seed)
    assert splits == assign_splits(groups, [None] * len(groups), shares, seed)
    assert set(splits) == set(SPLITS)
    for group in set(groups):
        assert len({s for g, s in zip(groups, splits, strict=True) if g == group}) == 1


def test_shares_of_groups():
    groups = [str(i) for i in range(100)]
    shares = SplitSettings(test=0.2, validation=0.1)
    splits = Counter(assign_splits(groups, [None] * 100, shares, 0))
    assert splits == {"train": 70, "validation": 10, "test": 20}


def test_the_own_division_is_followed_and_completed():
    native = ["train"] * 10 + ["test"] * 5
    groups = [str(i) for i in range(15)]
    splits = assign_splits(groups, native, SplitSettings(validation=0.2), 0)
    assert splits[10:] == ["test"] * 5
    assert Counter(splits[:10]) == {"train": 8, "validation": 2}
    free = assign_splits(groups, native, SplitSettings(native=False, validation=0), 1)
    assert Counter(free) == {"train": 12, "test": 3}


def test_a_division_without_training_part_is_not_followed():
    native = ["validation"] * 5 + ["test"] * 5
    splits = assign_splits([str(i) for i in range(10)], native, SplitSettings(), 0)
    assert Counter(splits) == {"train": 7, "validation": 1, "test": 2}


def test_too_few_groups():
    with pytest.raises(ManifestError, match=r"'ct' has 1 group\(s\).*splits\.test or splits\.val"):
        assign_splits(["a"] * 50, [None] * 50, SplitSettings(), 0, "ct")
    only = SplitSettings(test=0, validation=0)
    assert assign_splits(["a"] * 5, [None] * 5, only, 0) == ["train"] * 5


# --- partition ---------------------------------------------------------------------------------


def owners_by_kind(silos):
    held = {}
    for silo in silos:
        for name, indices in silo.parts:
            assert len(indices)
            held.setdefault(name, []).append(silo.name)
    return held


@settings(max_examples=40)
@given(st.integers(1, 11), st.integers(1, 11), st.floats(0, 1), st.integers(0, 2**31), st.data())
def test_partition(kinds, count, p, seed, data):
    found = listings(kinds, size=data.draw(st.integers(count, 15)))
    plan = PartitionSettings(silos=count, unseen=p, seed=seed)
    exclusive = math.floor(p * kinds + 0.5)
    if exclusive == kinds and count > kinds:
        with pytest.raises(ManifestError, match="empty"):
            partition(found, plan)
        return
    silos = partition(found, plan)
    assert len(silos) == count
    held = owners_by_kind(silos)
    alone = [name for name, owners in held.items() if len(owners) == 1]
    assert len(alone) == (kinds if count == 1 else exclusive)
    assert all(len(owners) in (1, count) for owners in held.values())
    for name in found:  # every sample is somewhere, and nowhere twice
        parts = [i for silo in silos for corpus, i in silo.parts if corpus == name]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(found[name])))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = partition(found, plan)
    assert str(again) == str(silos)


def test_at_p_1_no_two_silos_share_a_kind():
    found = {**listings(3), "more": listing("more", 24, label="c0")}
    silos = partition(found, PartitionSettings(silos=3, unseen=1.0, seed=4))
    kinds = [{found[name].label_name for name, _ in silo.parts} for silo in silos]
    assert sorted(map(sorted, kinds)) == [["c0"], ["c1"], ["c2"]]


def test_kinds_that_are_alone_stay_so_as_p_grows():
    found = listings(6)
    before = set()
    for p in (0, 1 / 3, 2 / 3, 1):
        held = owners_by_kind(partition(found, PartitionSettings(silos=6, unseen=p, seed=2)))
        alone = {(name, *owners) for name, owners in held.items() if len(owners) == 1}
        assert before <= alone
        before = alone
    assert len(before) == 6


def test_the_seed_decides_who_gets_what():
    found = listings(6)
    drawn = {
        str(owners_by_kind(partition(found, PartitionSettings(unseen=1.0, seed=seed))).items())
        for seed in range(5)
    }
    assert len(drawn) == 5


def test_patients_stay_at_one_silo():
    found = {"c": listing("c", 40, groups=8)}
    silos = partition(found, PartitionSettings(silos=4, unseen=0.0))
    for silo in silos:
        ((_, indices),) = silo.parts
        assert len(indices) == 10
        groups = {found["c"].samples[i].group for i in indices}
        assert len(groups) == 2
    with pytest.raises(ManifestError, match=r"The silo 'silo\d+' is empty"):
        partition(found, PartitionSettings(silos=9, unseen=0.0))


def test_p_1_with_more_silos_than_kinds():
    with pytest.raises(ManifestError, match="at most 3 silos"):
        partition(listings(3), PartitionSettings(silos=4, unseen=1.0))


def test_the_log_says_who_holds_what(caplog):
    with caplog.at_level(logging.INFO, "fedefm_core.corpora"):
        partition(listings(2), PartitionSettings(silos=2, unseen=0.5))
    assert "1 of 2 kinds of image belong to one silo alone (p = 0.5, seed 0)" in caplog.text
    assert "silo0: " in caplog.text
    assert " samples (c0 " in caplog.text


def test_silos_by_name():
    manifest = Manifest(
        corpora={
            n: CorpusSettings(adapter=f"simulated:{n}", count=20) for n in ("human", "animal")
        },
        silos={"rome": ("human",), "oslo": ("human", "animal")},
    )
    found = list_corpora(manifest)
    rome, oslo = silos_of(manifest, found)
    assert [(name, len(i)) for name, i in rome.parts] == [("human", 7)]
    assert [(name, len(i)) for name, i in oslo.parts] == [("human", 7), ("animal", 14)]
    tested = silos_of(manifest, found, "test")
    assert [len(silo) for silo in tested] == [2, 6]


# --- corpora -----------------------------------------------------------------------------------


@pytest.fixture
def drive_manifest(tmp_path):
    TREES["drive"](tmp_path / "DRIVE")
    text = "size: 16\ncache: cache\ncorpora: {d: {adapter: drive, path: DRIVE}}\n"
    return load_manifest(write_manifest(tmp_path, text))


def test_a_corpus_is_a_sequence_of_samples(drive_manifest):
    corpus = load_corpora(drive_manifest)["d"]
    assert len(corpus) == len(list(corpus)) == 7
    assert corpus.images.shape == corpus.masks.shape == (7, 16, 16)
    by_name = {Path(s.name).name: i for i, s in enumerate(corpus.listing.samples)}
    sample = corpus[by_name["23_training.tif"]]
    assert (sample.image.shape, sample.image.dtype, sample.label) == ((16, 16), np.uint8, 0)
    np.testing.assert_array_equal(sample.image, shrink_image(picture(23), 16))
    np.testing.assert_array_equal(sample.mask, shrink_mask(box(1), 16))
    assert corpus[by_name["01_test.tif"]].mask is None
    assert sorted(np.concatenate([corpus.indices(split) for split in SPLITS])) == list(range(7))


def test_nothing_is_decoded_twice(drive_manifest, monkeypatch):
    first = load_corpora(drive_manifest)["d"]
    monkeypatch.setattr("fedefm_core.corpora.corpus.decode", None)
    second = load_corpora(drive_manifest)["d"]
    np.testing.assert_array_equal(first.images, second.images)
    assert [path.suffix for path in drive_manifest.cache.iterdir()] == [".npy"]


def test_another_setting_or_file_is_decoded_anew(drive_manifest, tmp_path):
    def file(manifest):
        return cache_file(manifest, list_corpora(manifest)["d"])

    before = file(drive_manifest)
    assert file(drive_manifest) == before
    assert file(drive_manifest.model_copy(update={"size": 32})) != before
    write(tmp_path / "DRIVE/training/1st_manual/21_manual1.gif", box(0))
    changed = file(drive_manifest)
    assert changed != before
    limited = drive_manifest.corpora["d"].model_copy(update={"limit": 4})
    assert file(drive_manifest.model_copy(update={"corpora": {"d": limited}})) != changed


def test_a_broken_file_leaves_no_cache(drive_manifest, tmp_path):
    broken = tmp_path / "DRIVE/training/images/22_training.tif"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(FrameError, match=r"22_training\.tif"):
        load_corpora(drive_manifest)
    assert list(drive_manifest.cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(drive_manifest, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cache"):
        load_corpora(drive_manifest)


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "fedefm_core" / "corpora"


def test_slices_by_every_and_limit(tmp_path):
    TREES["vessel12"](tmp_path / "V")

    def load(**settings):
        corpus = CorpusSettings(adapter="vessel12", path=tmp_path / "V", **settings)
        manifest = Manifest(size=16, cache=tmp_path / "cache", corpora={"v": corpus})
        return load_corpora(manifest)["v"]

    whole, half, few = load(), load(every=2), load(limit=6)
    assert (len(whole), len(half), len(few)) == (24, 12, 6)
    assert [sample.frame for sample in half.listing.samples] == [0, 2] * 6
    np.testing.assert_array_equal(half.images, whole.images[::2])
    names = [sample.name for sample in whole.listing.samples]
    for i, sample in enumerate(few.listing.samples):
        np.testing.assert_array_equal(few.images[i], whole.images[names.index(sample.name)])
    assert min(few.listing.counts().values()) >= 1
    assert all(sample.mask is None for sample in whole)


def test_gather(drive_manifest, tmp_path):
    corpora = load_corpora(drive_manifest)
    images, labels = gather(corpora, [("d", np.array([3, 1])), ("d", np.array([5]))])
    np.testing.assert_array_equal(images, corpora["d"].images[[3, 1, 5]])
    assert (labels.dtype, labels.tolist()) == (np.int64, [0, 0, 0])


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_samples(name):
    first = draw_simulated(name, 3, 5, 128)
    again = draw_simulated(name, 3, 5, 128)
    other = draw_simulated(name, 3, 6, 128)
    reseeded = draw_simulated(name, 4, 5, 128)
    for one, two in zip(first, again, strict=True):
        assert (one.shape, one.dtype) == ((128, 128), np.uint8)
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], reseeded[0])
    assert first[1].max() < len(SIMULATED[name][1])


@pytest.mark.parametrize("name", ["simulated:angiography", "simulated:retina"])
def test_stand_ins_are_dark_where_their_masks_are(name):
    darker = []
    for index in range(6):
        grey, mask = draw_simulated(name, 0, index, 256)
        assert 0.005 < mask.mean() < 0.35
        near = cv2.dilate(mask, np.ones((9, 9), np.uint8)).astype(bool) & (mask == 0)
        near &= grey > 8  # outside of the round field there is nothing to be darker than
        darker.append(grey[(mask == 1) & (grey > 8)].mean() < grey[near].mean())
    assert all(darker)


def test_simulated_corpora_in_the_cache(tmp_path):
    corpora = {n: CorpusSettings(adapter=f"simulated:{n}", count=4) for n in ("human", "retina")}
    manifest = Manifest(size=32, cache=tmp_path, corpora=corpora)
    found = load_corpora(manifest)
    assert {name: corpus.images.shape for name, corpus in found.items()} == {
        "human": (4, 32, 32),
        "retina": (4, 32, 32),
    }
    assert found["human"].mask_classes == ("background", "catheter", "guidewire")
    assert all(sample.mask is not None for sample in found["retina"])
    assert found["retina"].masks.max() == 1
    reseeded = manifest.model_copy(update={"seed": 1})
    listed = found["human"].listing
    assert cache_file(reseeded, listed) != cache_file(manifest, listed)


@settings(max_examples=40)
@given(st.integers(8, 64), st.integers(8, 200), st.integers(8, 200), st.integers(1, 255))
def test_shrunk_masks_hold_no_other_values(size, height, width, value):
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = value
    assert set(np.unique(shrink_mask(mask, size))) <= {0, value}


@pytest.mark.parametrize("offset", [0, 1.5, 3, 4, 6.5, 7])
def test_a_thin_wire_neither_breaks_nor_vanishes(offset):
    mask = np.zeros((512, 512), np.uint8)
    ends = (np.array([[40, 30 + offset], [470, 380 + offset]]) * 16).round().astype(int)
    cv2.line(mask, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 2, 3, shift=4)
    shrunk = shrink_mask(mask, 64)
    assert set(np.unique(shrunk)) == {0, 2}
    assert cv2.connectedComponents(shrunk)[0] == 2
