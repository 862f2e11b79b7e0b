# SPDX-License-Identifier: Apache-2.0
"""Labelled folders: what becomes of their pixels, and what is refused by which sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_runner import run_cli
from corpora_trees import BOX, SHAPE, TREES, box, picture, write
from test_finetuning import settings

from fedefm_core.config import save_settings
from fedefm_core.corpora import ADAPTERS
from fedefm_core.errors import ConfigError, TruthError
from fedefm_core.finetuning import finetune
from fedefm_core.finetuning.data import PoolStream, read_frame
from fedefm_core.finetuning.segmentation import SegmentationTask, validation_batches
from fedefm_core.finetuning.settings import DataSettings
from fedefm_core.finetuning.sources import check_data, fit_labels, read_data, write_data
from fedefm_core.perception.preprocess import fit
from fedefm_core.perception.types import UNKNOWN

SPLITS = {"native": True, "validation": 0.3, "test": 0.2}


def labelled(root: Path, count: int = 6) -> Path:
    """images/ and masks/, guidewires in BOX."""
    for number in range(count):
        write(root / f"images/{number}.png", picture(number))
        write(root / f"masks/{number}.png", box(2))
    return root


def source(path: Path, **changes: object) -> DataSettings:
    return DataSettings.model_validate(
        {"adapter": "pictures", "path": path, "splits": SPLITS, **changes}
    )


def written(sources: list[DataSettings], folder: Path, size: int = 64) -> Path:
    assert list(write_data(sources, folder, size, seed=0))
    return folder


def test_images_and_masks_are_fitted_as_at_inference(tmp_path: Path) -> None:
    folder = written([source(labelled(tmp_path / "set"))], tmp_path / "data", size=96)
    image, labels = read_frame(read_data(folder, "train")[0])
    letterbox = fit(SHAPE, (96, 96))
    assert image.shape == labels.shape == (96, 96)
    back = letterbox.label_map_to_input(labels)
    np.testing.assert_array_equal(back, box(2))
    outside = np.ones((96, 96), bool)
    letterbox.content(outside.view(np.uint8))[:] = 0
    assert (labels[outside] == UNKNOWN).all()
    assert outside.any()


def test_a_thin_line_stays_whole_when_made_smaller() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 31] = 2
    smaller = fit_labels(labels, fit((64, 64), (32, 32)))
    assert (smaller[:, 15] == 2).all()
    assert np.count_nonzero(smaller) == 32


def test_splits_keep_groups_apart_and_test_is_left_alone(tmp_path: Path) -> None:
    TREES["cathaction"](tmp_path / "set")
    chosen = source(tmp_path / "set", adapter="cathaction", classes={"instrument": "guidewire"})
    folder = written([chosen], tmp_path / "data")
    train, validation = (read_data(folder, part) for part in ("train", "validation"))
    assert {f.group for f in train}.isdisjoint({f.group for f in validation})
    assert len(train) + len(validation) == 12  # video e is the data set's own test part
    assert not list(write_data([chosen], folder, 64, seed=0))  # done before


def test_tips_come_from_truth_and_are_unknown_without(tmp_path: Path) -> None:
    root = labelled(tmp_path / "set")
    without = read_data(written([source(root)], tmp_path / "one"), "train")
    assert without[0].tips is None
    instruments = [{"kind": "guidewire", "tip_px": [12.0, 20.0]}]
    frames = [{"name": str(n), "instruments": instruments} for n in range(6)]
    (root / "truth.json").write_text(json.dumps({"frames": frames}))
    known = read_data(written([source(root)], tmp_path / "two"), "train")
    expected = fit(SHAPE, (64, 64)).to_network(np.array([12.0, 20.0]))
    np.testing.assert_allclose(known[0].tips[0][1], expected, atol=1e-3)


def test_coco_polygons_and_their_classes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    rows, columns = BOX
    square = [columns.start, rows.start, columns.stop, rows.start]
    square += [columns.stop, rows.stop, columns.start, rows.stop]
    images = []
    for number in range(6):
        write(root / f"images/{number}.png", picture(number))
        images.append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 40})
    kinds = [{"id": 9, "name": "guidewire"}, {"id": 4, "name": "sheath"}]
    drawn = [{"image_id": n, "category_id": 9, "segmentation": [square]} for n in range(5)]
    content = {"images": images, "categories": kinds, "annotations": drawn}
    (root / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="marks 'sheath'; say in 'classes'"):
        check_data(source(root, adapter="coco"))
    chosen = source(root, adapter="coco", classes={"sheath": "catheter"})
    data = check_data(chosen)
    assert data.mask_classes == ("background", "sheath", "guidewire")
    mask = next(data.records[0].masks(SHAPE))
    np.testing.assert_array_equal(mask[rows.start : rows.stop - 1, columns.start + 1], 2)
    assert 0 < np.count_nonzero(mask != box(2)) < 40  # OpenCV fills a polygon's border too
    assert not next(data.records[5].masks(SHAPE)).any()
    with pytest.raises(TruthError, match="drawn on an image of 40 x 48"):
        next(data.records[0].masks((40, 48)))
    assert read_data(written([chosen], tmp_path / "data"), "train")


def test_polylines_are_drawn_as_wide_as_stated(tmp_path: Path) -> None:
    root = tmp_path / "set"
    videos = []
    for video in range(4):
        frames = []
        for frame in range(2):
            name = f"videos/{video}/{frame}.png"
            write(root / name, picture(10 * video + frame))
            points = [[20, 8], [20, 24], [20, 40]]
            frames.append({"cameraA": {"image": name, "points": points}})
        videos.append({"frames": frames})
    (root / "annotations").mkdir()
    (root / "annotations/raw.json").write_text(json.dumps(videos))
    for width in (1.0, 3.0, 5.0):
        data = check_data(source(root, adapter="polylines", line_width_px=width))
        mask = next(data.records[0].masks(SHAPE))
        assert mask[24].sum() == width
        assert mask[24, 20] == 1
        assert not mask[2].any()
    assert len({record.group for record in data.records}) == 4
    with pytest.raises(ConfigError, match="'line_width_px' must be given"):
        check_data(source(root, adapter="polylines"))


def test_a_run_learns_from_folders_and_resumes(tmp_path: Path) -> None:
    data = [source(labelled(tmp_path / "set")).model_dump(mode="json")]
    chosen = settings(data=data, simulation={"size": 64}, crop=32)
    best = finetune(chosen, tmp_path / "run")
    assert best.is_file()
    finetune(chosen, tmp_path / "run", resume=True)
    stream = SegmentationTask(chosen).stream(tmp_path / "run")
    assert isinstance(stream, PoolStream)
    assert (stream[(0, True)].tips == -1).all()
    batches = validation_batches(chosen, tmp_path / "run")
    assert sum(len(batch.image) for batch in batches) == 2
    scores = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(x["total"]) for x in scores if x["split"] == "train")


def damage(root: Path, what: str) -> None:
    if what == "another size":
        write(root / "masks/3.png", box(1, (24, 40)))
    elif what == "another value":
        write(root / "masks/3.png", box(7))
    elif what == "255":
        write(root / "masks/3.png", box(255))
    elif what == "image without mask":
        (root / "masks/3.png").unlink()
    elif what == "mask without image":
        shutil.copy(root / "masks/3.png", root / "masks/other.png")
    elif what == "no images":
        shutil.rmtree(root / "images")
        (root / "images").mkdir()
    elif what == "one image":
        for number in range(1, 6):
            (root / f"images/{number}.png").unlink()
            (root / f"masks/{number}.png").unlink()
    elif what == "no masks":
        shutil.rmtree(root / "masks")


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("another size", "masks/3.png: the mask is 40 x 24 pixels, its image 40 x 48"),
        ("another value", "masks/3.png of 3.png holds the value 7; its classes are 0"),
        ("255", "holds the value 255"),
        ("image without mask", "1 of 6 images in .* have no mask of their name: 3.png"),
        ("mask without image", "1 masks in .* have no image of their name: other.png"),
        ("no images", "holds no images in the layout expected"),
        ("no masks", "6 of 6 images in"),
        ("one image", "too few to set aside some"),
    ],
)
def test_what_does_not_fit_is_refused_by_sentence(
    tmp_path: Path, what: str, sentence: str
) -> None:
    root = labelled(tmp_path / "set")
    damage(root, what)
    with pytest.raises(TruthError, match=sentence):
        list(write_data([source(root, splits={"test": 0})], tmp_path / "data", 64, 0))


def test_unknown_and_skipped_are_by_choice(tmp_path: Path) -> None:
    root = labelled(tmp_path / "set")
    damage(root, "255")
    (root / "masks/5.png").unlink()
    chosen = source(root, unknown_255=True, unlabelled="skip")
    frames = written([chosen], tmp_path / "data")
    kept = [*read_data(frames, "train"), *read_data(frames, "validation")]
    assert len(kept) == 4  # of 5 labelled, one is for testing


def test_the_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    root = labelled(tmp_path / "set")
    damage(root, "image without mask")
    data = [source(root).model_dump(mode="json")]
    save_settings(settings(data=data, simulation={"size": 64}, crop=32), tmp_path / "run.yaml")
    result = run_cli("finetune", tmp_path / "run.yaml", "--out", tmp_path / "run")
    assert result.code == 1
    assert "3.png" in result.err
    assert not (tmp_path / "run").exists()
    cv2.imwrite(str(root / "masks/3.png"), box(1))


@pytest.mark.parametrize("name", ["cathaction", "chase_db1", "drive", "eiphantom", "eisimulation"])
def test_whole_sets_in_their_layouts_are_taken(tmp_path: Path, name: str) -> None:
    TREES[name](tmp_path)
    classes = {"instrument": "guidewire", "vessel": "background"}
    data = ADAPTERS[name](tmp_path)
    named = {key: value for key, value in classes.items() if key in data.mask_classes}
    found = check_data(source(tmp_path, adapter=name, classes=named, unlabelled="skip"))
    assert len(found.records) == len(data.records)
