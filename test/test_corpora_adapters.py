# SPDX-License-Identifier: Apache-2.0
"""Each adapter on a small tree of its layout, and on the real ones where they are."""

import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
from corpora_trees import BOX, SHAPE, TREES, arcade_text, box, picture, volume, write_metaimage

from fedefm_core.corpora import ADAPTERS
from fedefm_core.corpora.reading import decode, frame_count, read_frames
from fedefm_core.errors import FrameError, ManifestError, TruthError
from fedefm_core.frames import Window

# adapter: (images by native split, images with a mask, groups, names of the masks' values)
EXPECTED = {
    "arcade": ({"train": 5, "validation": 2, "test": 2}, 9, 9, "background vessel"),
    "cathaction": ({"train": 12, "test": 3}, 15, 5, "background instrument"),
    "chase_db1": ({"train": 8, "test": 4}, 12, 6, "background vessel"),
    "coco": ({None: 6}, 6, 6, "background catheter guidewire"),
    "decathlon": ({"train": 16, "test": 4}, 16, 5, "background Vessel Tumour"),
    "drive": ({"train": 5, "test": 2}, 5, 7, "background vessel"),
    "eianimal": ({"train": 3}, 3, 3, "background catheter guidewire"),
    "eiphantom": ({"train": 5, "test": 2}, 7, 7, "background catheter guidewire"),
    "eisimulation": ({"train": 5, "test": 2}, 7, 7, "background instrument"),
    "pictures": ({None: 6}, 4, 6, "background catheter guidewire"),
    "ranzcr_clip": ({None: 8}, 4, 4, "background line"),
    "sennet": ({"train": 12, "test": 3}, 12, 4, "background vessel"),
    "vessel12": ({None: 24}, 0, 6, "background"),
}


@pytest.fixture
def tree(tmp_path):
    def made(name):
        TREES[name](tmp_path / name)
        return tmp_path / name

    return made


def everything(data_set):
    """(record, decoded) of every image."""
    return [
        (record, decoded)
        for record in data_set.records
        for decoded in decode(record, range(frame_count(record.path)))
    ]


def test_every_adapter_has_a_tree():
    assert ADAPTERS.keys() == TREES.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", ADAPTERS)
def test_counts_groups_and_masks(name, tree):
    data_set = ADAPTERS[name](tree(name))
    images = everything(data_set)
    splits, masked, groups, classes = EXPECTED[name]
    assert Counter(record.split for record, _ in images) == splits
    assert sum(decoded.mask is not None for _, decoded in images) == masked
    assert len({record.group for record, _ in images}) == groups
    assert data_set.mask_classes == tuple(classes.split())
    assert {decoded.grey.shape for _, decoded in images} == {SHAPE}
    assert {decoded.grey.dtype for _, decoded in images} == {np.dtype(np.uint8)}
    for _, decoded in images:
        if decoded.mask is not None:
            assert decoded.mask.shape == SHAPE
            assert decoded.mask.dtype == np.uint8
            assert decoded.mask.max() < len(data_set.mask_classes)
    all_paths = [record.path for record in data_set.records]
    assert len(set(all_paths)) == len(all_paths)


@pytest.mark.parametrize(
    ("name", "value"),
    [("drive", 1), ("chase_db1", 1), ("eiphantom", 2), ("eisimulation", 1), ("cathaction", 1)],
)
def test_masks_are_where_the_files_have_them(name, value, tree):
    for record, decoded in everything(ADAPTERS[name](tree(name))):
        if record.masks is not None:
            np.testing.assert_array_equal(decoded.mask, box(value))


def test_no_frame_leaves_its_video(tree):
    records = ADAPTERS["cathaction"](tree("cathaction")).records
    assert Counter(record.group for record in records)["video-a"] == 3
    assert {r.split for r in records if r.group == "video-e"} == {"test"}


def test_png_pixels_come_through_untouched(tree):
    records = ADAPTERS["eiphantom"](tree("eiphantom")).records
    first = next(iter(decode(records[0], [0])))
    by_name = {r.path.parent.parent.name + r.path.stem: r for r in records}
    np.testing.assert_array_equal(first.grey, picture(210))  # phantom_test comes first
    np.testing.assert_array_equal(
        next(iter(decode(by_name["phantom_train3"], [0]))).grey, picture(203)
    )


@pytest.mark.parametrize("layout", ["coco", "text"])
def test_arcade_polygons_fill_the_vessel_and_no_stenosis(layout, tmp_path):
    if layout == "coco":
        TREES["arcade"](tmp_path)
    else:
        arcade_text(tmp_path)
    for _, decoded in everything(ADAPTERS["arcade"](tmp_path)):
        inner = np.zeros(SHAPE, bool)
        inner[BOX[0].start + 1 : BOX[0].stop - 1, BOX[1].start + 1 : BOX[1].stop - 1] = True
        assert decoded.mask[inner].all()
        outside = np.ones(SHAPE, bool)
        outside[BOX[0].start - 1 : BOX[0].stop + 1, BOX[1].start - 1 : BOX[1].stop + 1] = False
        assert not decoded.mask[outside].any()


def test_decathlon_masks_follow_their_slices(tree):
    records = ADAPTERS["decathlon"](tree("decathlon")).records
    values = [decoded.mask.max() for decoded in decode(records[1], range(4))]
    assert values == [1, 2, 0, 1]
    third = list(decode(records[1], {1, 3}, Window(0.0, 400.0)))
    assert [decoded.frame for decoded in third] == [1, 3]
    hounsfield = volume(1)[1].astype(float)
    expected = np.clip((hounsfield + 200) / 399 * 255, 0, 255)
    assert np.abs(third[0].grey.astype(float) - expected).max() < 1.5
    np.testing.assert_array_equal(third[0].mask, box(2))


def test_vessel12_takes_scans_and_no_lung_masks(tree):
    records = ADAPTERS["vessel12"](tree("vessel12")).records
    assert [record.group for record in records][-1] == "VESSEL12_21"
    assert not any("ungmask" in str(record.path) for record in records)
    slices = list(decode(records[0], range(4), Window(0.5, 2**16)))
    order = np.argsort(volume(1)[2], axis=None)
    assert np.all(np.diff(slices[2].grey.ravel()[order].astype(int)) >= 0)


def test_sennet_takes_the_dense_labels(tree):
    records = ADAPTERS["sennet"](tree("sennet")).records
    third = [record for record in records if record.group == "kidney_3"]
    marked = [next(iter(decode(record, [0]))).mask.any() for record in third]
    assert marked == [False, True, True]
    assert {r.group for r in records if "kidney_1" in str(r.path)} == {"kidney_1"}


def test_ranzcr_draws_the_line(tree):
    records = ADAPTERS["ranzcr_clip"](tree("ranzcr_clip")).records
    mask = next(iter(decode(records[0], [0]))).mask
    expected = np.zeros(SHAPE, np.uint8)
    expected[BOX[0], BOX[1].start] = 1
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("name", sorted(set(ADAPTERS) - {"pictures", "decathlon", "ranzcr_clip"}))
def test_a_folder_of_something_else_is_refused(name, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ManifestError, match=r"holds no images in the layout expected: .*\."):
        ADAPTERS[name](tmp_path)


@pytest.mark.parametrize(("name", "file"), [("decathlon", "dataset.json"), ("ranzcr_clip", "csv")])
def test_a_missing_index_is_named(name, file, tmp_path):
    with pytest.raises(ManifestError, match=file):
        ADAPTERS[name](tmp_path)


def test_a_mask_of_another_size_is_named(tree):
    root = tree("eiphantom")
    np.save(root / "phantom_train/masks/3.npy", box(1).T)
    record = next(
        r for r in ADAPTERS["eiphantom"](root).records if "train/images/3" in str(r.path)
    )
    with pytest.raises(TruthError, match=r"3\.npy: the mask is 48 x 40 pixels, its image 40 x 48"):
        list(decode(record, [0]))


def test_an_npy_mask_is_never_unpickled(tree):
    root = tree("eiphantom")
    np.save(root / "phantom_train/masks/0.npy", np.array([{"a": 1}]), allow_pickle=True)
    record = next(
        r for r in ADAPTERS["eiphantom"](root).records if "train/images/0" in str(r.path)
    )
    with pytest.raises(TruthError, match=r"0\.npy"):
        list(decode(record, [0]))


def pixels_of(path):
    return [frame.pixels for frame in read_frames(path)]


class TestMetaImage:
    @pytest.mark.parametrize(
        ("kind", "dtype"),
        [("MET_UCHAR", "u1"), ("MET_SHORT", "<i2"), ("MET_FLOAT", "<f4"), ("MET_INT", "<i4")],
    )
    def test_types(self, tmp_path, kind, dtype):
        stack = np.abs(volume(1) // 8).astype(dtype)
        write_metaimage(tmp_path / "a.mhd", stack, kind)
        np.testing.assert_array_equal(np.stack(pixels_of(tmp_path / "a.mhd")), stack)

    def test_big_endian(self, tmp_path):
        more = {"BinaryDataByteOrderMSB": "True"}
        write_metaimage(tmp_path / "a.mhd", volume(1).astype(">i2"), **more)
        np.testing.assert_array_equal(np.stack(pixels_of(tmp_path / "a.mhd")), volume(1))

    def test_compressed(self, tmp_path):
        write_metaimage(tmp_path / "a.mhd", volume(1), CompressedData="True")
        (tmp_path / "a.raw").write_bytes(zlib.compress(volume(1).tobytes()))
        np.testing.assert_array_equal(np.stack(pixels_of(tmp_path / "a.mhd")), volume(1))

    def test_truncated(self, tmp_path):
        write_metaimage(tmp_path / "a.mhd", volume(1))
        raw = tmp_path / "a.raw"
        raw.write_bytes(raw.read_bytes()[:-10])
        with pytest.raises(FrameError, match=r"a\.mhd: .*declares 4 slices and holds 3"):
            pixels_of(tmp_path / "a.mhd")

    def test_missing_voxels(self, tmp_path):
        write_metaimage(tmp_path / "a.mhd", volume(1))
        (tmp_path / "a.raw").unlink()
        with pytest.raises(FrameError, match=r"a\.mhd: the file a\.raw .* is missing"):
            pixels_of(tmp_path / "a.mhd")

    def test_no_header(self, tmp_path):
        (tmp_path / "a.mhd").write_bytes(bytes(range(256)))
        with pytest.raises(FrameError, match="no MetaImage header"):
            pixels_of(tmp_path / "a.mhd")


def test_real_arcade(shared_data):
    data_set = ADAPTERS["arcade"](shared_data / "angiography_arcade")
    assert len(data_set.records) == 500
    decoded = next(iter(decode(data_set.records[0], [0])))
    assert decoded.grey.shape == (512, 512)
    covered = decoded.mask.astype(bool)
    assert 0.005 < covered.mean() < 0.3
    assert decoded.grey[covered].mean() < decoded.grey[~covered].mean()  # contrast medium is dark


@pytest.mark.parametrize(
    ("name", "folder", "count"),
    [("drive", "retina_drive", 40), ("chase_db1", "retina_chasedb1", 28)],
)
def test_real_retina(name, folder, count, shared_data):
    data_set = ADAPTERS[name](shared_data / folder)
    assert len(data_set.records) == count
    assert Counter(r.split for r in data_set.records)["train"] == 20
    decoded = next(iter(decode(data_set.records[0], [0])))
    covered = decoded.mask.astype(bool)
    assert 0.03 < covered.mean() < 0.2
    ring = cv2.dilate(decoded.mask, np.ones((9, 9), np.uint8)).astype(bool) & ~covered
    assert decoded.grey[covered].mean() < decoded.grey[ring].mean()  # vessels are dark
