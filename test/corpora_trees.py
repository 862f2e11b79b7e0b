# SPDX-License-Identifier: Apache-2.0
"""Small trees of files in the layouts of public data sets, with known pixels and masks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import imagecodecs
import nibabel as nib
import numpy as np

SHAPE = (48, 40)  # (H, W): not square, so that swapped axes are noticed
BOX = (slice(8, 24), slice(10, 20))  # rows, columns of the foreground of every mask


def picture(seed: int, shape=SHAPE) -> np.ndarray:
    """(H, W) uint8 noise, another for each seed."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def box(value: int = 1, shape=SHAPE) -> np.ndarray:
    """(H, W) uint8: value in BOX, 0 elsewhere."""
    mask = np.zeros(shape, np.uint8)
    mask[BOX] = value
    return mask


def write(path: Path, pixels: np.ndarray) -> None:
    """Write an image in the format of its name; .npy and .gif too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".gif":
        path.write_bytes(imagecodecs.gif_encode(pixels))
    else:
        assert cv2.imwrite(str(path), pixels)


def drive(root: Path) -> None:
    for number in range(21, 26):
        write(root / f"training/images/{number}_training.tif", picture(number))
        write(root / f"training/1st_manual/{number}_manual1.gif", box(255))
        write(root / f"training/mask/{number}_training_mask.gif", box(255) * 0 + 255)
    for number in (1, 2):
        write(root / f"test/images/{number:02d}_test.tif", picture(number))
        write(root / f"test/mask/{number:02d}_test_mask.gif", box(255))


def chase_db1(root: Path) -> None:
    for child in (1, 2, 3, 10, 11, 14):
        for side in "LR":
            write(root / f"Image_{child:02d}{side}.jpg", picture(10 * child + ord(side)))
            write(root / f"Image_{child:02d}{side}_1stHO.png", box(255))
            write(root / f"Image_{child:02d}{side}_2ndHO.png", box(255) * 0)


def arcade(root: Path) -> None:
    rows, columns = BOX
    corners = [columns.start, rows.start, columns.stop, rows.start]
    corners += [columns.stop, rows.stop, columns.start, rows.stop]
    start = 0
    for split, count in (("train", 5), ("val", 2), ("test", 2)):
        folder = root / "syntax" / split
        images, annotations = [], []
        for number in range(1, count + 1):
            write(folder / f"images/{number}.png", picture(start + number))
            images.append({"id": number, "file_name": f"{number}.png"})
            vessel = {"image_id": number, "category_id": 3, "segmentation": [corners]}
            narrowing = {
                "image_id": number,
                "category_id": 26,
                "segmentation": [[0, 0, 9, 0, 9, 9]],
            }
            annotations += [vessel, narrowing]
        kinds = [{"id": 3, "name": "3"}, {"id": 26, "name": "stenosis"}]
        content = {"images": images, "categories": kinds, "annotations": annotations}
        (folder / "annotations").mkdir()
        (folder / f"annotations/{split}.json").write_text(json.dumps(content))
        start += count
    write(root / "stenosis/train/images/1.png", picture(99))


def arcade_text(root: Path) -> None:
    rows, columns = BOX
    height, width = SHAPE
    corners = [columns.start / width, rows.start / height, columns.stop / width]
    corners += [rows.start / height, columns.stop / width, rows.stop / height]
    corners += [columns.start / width, rows.stop / height]
    for number in range(6):
        write(root / f"images/{'val' if number < 4 else 'test'}_{number}.png", picture(number))
        label = root / f"labels/{'val' if number < 4 else 'test'}_{number}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(f"3 {' '.join(map(str, corners))}\n25 0 0 0.5 0 0.5 0.1\n")


def volume(seed: int, slices: int = 4) -> np.ndarray:
    """(slices, H, W) int16 in Hounsfield units, as CT."""
    return np.random.default_rng(seed).integers(-1000, 1000, (slices, *SHAPE)).astype(np.int16)


def decathlon(root: Path) -> None:
    training = []
    for number in range(4):
        image = f"imagesTr/hepaticvessel_{number:03d}.nii.gz"
        label = image.replace("imagesTr", "labelsTr")
        mask = np.stack([box(1), box(2), box(0), box(1)])
        for name, stack in ((image, volume(number)), (label, mask)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(stack.transpose(2, 1, 0), np.eye(4)), root / name)
        training.append({"image": f"./{image}", "label": f"./{label}"})
    (root / "imagesTs").mkdir()
    test = "imagesTs/hepaticvessel_100.nii.gz"
    nib.save(nib.Nifti1Image(volume(100).transpose(2, 1, 0), np.eye(4)), root / test)
    (root / "imagesTr/._hepaticvessel_000.nii.gz").write_bytes(b"left by macOS")
    index = {
        "labels": {"0": "background", "1": "Vessel", "2": "Tumour"},
        "training": training,
        "test": [f"./{test}"],
    }
    (root / "dataset.json").write_text(json.dumps(index))


def write_metaimage(path: Path, stack: np.ndarray, kind: str = "MET_SHORT", **more: str) -> None:
    """A .mhd with its .raw beside it; more: further lines of the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slices, rows, columns = stack.shape
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "ElementSpacing": "0.7 0.8 1.5",
        "DimSize": f"{columns} {rows} {slices}",
        "ElementType": kind,
        **more,
        "ElementDataFile": path.with_suffix(".raw").name,
    }
    path.write_text("".join(f"{key} = {value}\n" for key, value in header.items()))
    path.with_suffix(".raw").write_bytes(stack.tobytes())


def vessel12(root: Path) -> None:
    for number in range(1, 6):
        write_metaimage(root / f"VESSEL12_01-05/VESSEL12_{number:02d}.mhd", volume(number))
        lung = np.stack([box(1)] * 4)
        masks = root / "VESSEL12_01-20_Lungmasks"
        write_metaimage(masks / f"VESSEL12_{number:02d}.mhd", lung, "MET_UCHAR")
    write_metaimage(root / "VESSEL12_ExampleScans/Scans/VESSEL12_21.mhd", volume(21))
    lungs = root / "VESSEL12_ExampleScans/Lungmasks/VESSEL12_21.mhd"
    write_metaimage(lungs, np.stack([box(1)] * 4), "MET_UCHAR")


def sennet(root: Path) -> None:
    stacks = {
        "train/kidney_1_dense": (1, True),
        "train/kidney_1_voi": (2, True),
        "train/kidney_2": (3, True),
        "train/kidney_3_sparse": (4, False),  # its own labels: nothing is marked
        "test/kidney_5": (5, None),
    }
    for name, (seed, dense) in stacks.items():
        for number in range(3):
            write(root / f"{name}/images/{number:04d}.tif", picture(10 * seed + number))
            if dense is not None:
                write(root / f"{name}/labels/{number:04d}.tif", box(255 if dense else 0))
    for number in range(1, 3):  # not of every slice
        write(root / f"train/kidney_3_dense/labels/{number:04d}.tif", box(255))


def cathaction(root: Path) -> None:
    for part, videos in (("human_dataset_train", "abcd"), ("human_dataset_test", "e")):
        for video in videos:
            for frame in range(3):
                name = f"video-{video}_img-{frame:05d}"
                folder = root / f"segmentation_{part}" / part
                write(folder / f"img/{name}.jpg", picture(10 * ord(video) + frame))
                write(folder / f"mask/{name}_mask.png", box(255))


def ranzcr_clip(root: Path) -> None:
    rows, columns = BOX
    (root / "train").mkdir(parents=True)
    with (root / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["StudyInstanceUID", "ETT - Abnormal", "CVC - Normal", "PatientID"])
        for number in range(8):
            table.writerow([f"1.2.826.{number}", 0, 1, f"patient{number // 2}"])
            write(root / f"train/1.2.826.{number}.jpg", picture(number))
    line = [[columns.start, rows.start], [columns.start, rows.stop - 1]]
    with (root / "train_annotations.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["StudyInstanceUID", "label", "data"])
        for number in range(4):
            table.writerow([f"1.2.826.{number}", "CVC - Normal", json.dumps(line)])


def eiphantom(root: Path) -> None:
    for part, count in (("phantom_train", 5), ("phantom_test", 2)):
        for number in range(count):
            seed = 200 + number + 10 * (part == "phantom_test")
            write(root / f"{part}/images/{number}.png", picture(seed))
            write(root / f"{part}/masks/{number}.npy", box(2).astype(np.int64))
    for number in range(3):
        write(root / f"animal_train/images/{number}.png", picture(400 + number))
        write(root / f"animal_train/masks/{number}.npy", box(1).astype(bool))


def eisimulation(root: Path) -> None:
    for part, count in (("sim_train", 5), ("sim_test", 2)):
        for number in range(count):
            seed = 300 + number + 10 * (part == "sim_test")
            write(root / f"{part}/images/{number}.png", picture(seed))
            write(root / f"{part}/masks/{number}_mask.png", box(37))


def pictures(root: Path) -> None:
    for number in range(6):
        write(root / f"images/{number}.png", picture(number))
        if number < 4:
            write(root / f"masks/{number}.png", box(1))


def coco(root: Path) -> None:
    rows, columns = BOX
    # OpenCV fills a polygon's border too: these corners are the centres of the box's own pixels.
    corners = [columns.start, rows.start, columns.stop - 1, rows.start]
    corners += [columns.stop - 1, rows.stop - 1, columns.start, rows.stop - 1]
    square = [value + 0.5 for value in corners]
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(6)]
    for number in range(6):
        write(root / f"images/{number}.png", picture(number))
    kinds = [{"id": 7, "name": "catheter"}, {"id": 9, "name": "guidewire"}]
    drawn = [{"image_id": n, "category_id": 7, "segmentation": [square]} for n in range(6)]
    content = {"images": images, "categories": kinds, "annotations": drawn}
    (root / "annotations.json").write_text(json.dumps(content))


TREES = {
    "arcade": arcade,
    "cathaction": cathaction,
    "chase_db1": chase_db1,
    "coco": coco,
    "decathlon": decathlon,
    "drive": drive,
    "eianimal": eiphantom,
    "eiphantom": eiphantom,
    "eisimulation": eisimulation,
    "pictures": pictures,
    "ranzcr_clip": ranzcr_clip,
    "sennet": sennet,
    "vessel12": vessel12,
}
