# SPDX-License-Identifier: Apache-2.0
"""Raster files, folders, and which reader takes a file."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fedefm_core.errors import FrameError, FrameLimitError, UnsupportedFormatError
from fedefm_core.frames import FrameLimits, open_source, to_grey8

GREY8 = (np.add.outer(np.arange(20), np.arange(30)) * 5).astype(np.uint8)
GREY16 = GREY8.astype(np.uint16) * 257
RGB = np.stack([GREY8, GREY8 // 2, GREY8 // 4], -1)
LUMA = RGB @ [0.299, 0.587, 0.114]


def write(path, image):
    assert cv2.imwrite(str(path), image if image.ndim == 2 else image[..., ::-1])
    return path


def read(path, **limits):
    return list(open_source(path, FrameLimits(**limits)))


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_8_bit_is_exact(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", GREY8)
    (frame,) = read(path)
    np.testing.assert_array_equal(frame.pixels, GREY8)
    assert (frame.source, frame.index, frame.stamp_ns) == (str(path), 0, 0)
    assert not frame.pixels.flags.writeable


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_exact(tmp_path, suffix):
    (frame,) = read(write(tmp_path / f"a.{suffix}", GREY16))
    np.testing.assert_array_equal(frame.pixels, GREY16)
    assert frame.pixels.dtype == np.uint16


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_colour_becomes_luma(tmp_path, suffix):
    (frame,) = read(write(tmp_path / f"a.{suffix}", RGB))
    np.testing.assert_allclose(frame.pixels, LUMA, atol=6 if suffix == "jpg" else 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_other_colour_models(tmp_path, mode, suffix):
    image = Image.fromarray(RGB).convert("L" if mode in ("LA", "1") else "RGB")
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    if mode in ("RGBA", "LA"):
        image.putalpha(0)
    (frame,) = read(tmp_path / f"a.{suffix}")
    expected = np.asarray(image.convert("RGB")) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(to_grey8(frame), expected, atol=1)


def test_exif_rotation_leaves_the_stored_pixels_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY8).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert read(tmp_path / "a.jpg")[0].pixels.shape == GREY8.shape


def test_pages_of_a_tiff(tmp_path):
    pages = [GREY8, GREY16[:10], GREY8.astype(np.float32) / 7]
    images = [Image.fromarray(page) for page in pages]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    frames = read(tmp_path / "a.tif")
    for index, (frame, page) in enumerate(zip(frames, pages, strict=True)):
        np.testing.assert_array_equal(frame.pixels, page)
        assert (frame.index, frame.pixels.dtype) == (index, page.dtype)
    assert open_source(tmp_path / "a.tif").frame_count == 3
    with pytest.raises(FrameLimitError, match="3 frames; the limit is 2"):
        read(tmp_path / "a.tif", max_frames=2)


def test_white_is_zero_in_a_tiff(tmp_path):
    data = imagecodecs.tiff_encode(GREY8, photometric="miniswhite")
    (tmp_path / "a.tif").write_bytes(data)
    (frame,) = read(tmp_path / "a.tif")
    assert frame.inverted
    np.testing.assert_array_equal(to_grey8(frame), 255 - GREY8)


def test_a_tiff_whose_pages_run_in_a_circle(tmp_path):
    directory = struct.pack("<HHHIIHHIII", 2, 256, 4, 1, 5, 257, 4, 1, 5, 8)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + directory)
    with pytest.raises(FrameError, match="circle"):
        read(tmp_path / "a.tif")


def test_a_tiff_of_many_samples_a_pixel(tmp_path):
    entries = [(256, 4), (257, 4), (277, 60000)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0\x03\0" + directory + bytes(4))
    with pytest.raises(FrameError, match="60000 samples"):
        read(tmp_path / "a.tif")


def png_that_declares(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", png_that_declares(60000, 60000)),
        ("a.jpg", b"\xff\xd8\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 60000, 60000) + bytes(9)),
        ("a.bmp", b"BM" + bytes(12) + struct.pack("<Iii", 40, 60000, -60000) + bytes(40)),
        (
            "a.tif",
            b"II*\0\x08\0\0\0"
            + struct.pack("<HHHIIHHIII", 2, 256, 4, 1, 60000, 257, 4, 1, 60000, 0),
        ),
    ],
)
def test_the_declared_size_is_checked_before_decoding(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FrameLimitError, match="60000 x 60000 pixels; the limit") as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_truncated_files(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", GREY8)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(FrameError, match=str(path)):
        read(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    share=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=8),
)
def test_damaged_files_give_frames_or_a_frame_error(tmp_path, suffix, share, flips):
    data = bytearray(cv2.imencode(f".{suffix}", GREY8)[1].tobytes())
    for place, bit in flips:
        data[int(place * (len(data) - 1))] ^= 1 << bit
    (tmp_path / "a").write_bytes(data[: int(share * len(data))] if share < 0.9 else data)
    try:
        frames = read(tmp_path / "a")
    except FrameError:
        return
    assert all(to_grey8(frame).shape == frame.pixels.shape for frame in frames)


def test_damage_is_not_told_on_stderr(tmp_path):
    for suffix in ("png", "jpg", "tif", "bmp"):
        path = write(tmp_path / f"a.{suffix}", GREY8)
        path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "a.avi").write_bytes(b"RIFF\0\0\0\0AVI " + bytes(99))
    script = (
        "import sys; from fedefm_core.errors import FrameError; "
        "from fedefm_core.frames import open_source\n"
        "try: list(open_source(sys.argv[1]))\n"
        "except FrameError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_folder_in_natural_order(tmp_path):
    for number in (10, 2, 1, 33):
        write(tmp_path / f"frame{number}.png", np.full((4, 4), number, np.uint8))
    source = open_source(tmp_path)
    assert [frame.pixels[0, 0] for frame in source] == [1, 2, 10, 33]
    assert [frame.pixels[0, 0] for frame in source] == [1, 2, 10, 33]  # and again
    assert source.name == str(tmp_path)
    assert source.frame_rate_hz is None


def test_folder_sets_bad_files_aside_and_goes_on(tmp_path):
    write(tmp_path / "1.png", GREY8)
    (tmp_path / "2.png").write_bytes(b"no image")
    (tmp_path / "3.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "4").write_bytes(bytes(128) + b"DICM")  # DICOM by content alone
    (tmp_path / "5.gif").write_bytes(b"GIF89a" + bytes(20))
    write(tmp_path / "6.bmp", GREY8)
    for ignored in ("notes.txt", "truth.json", "table.csv", "README.md", "set.yaml", ".hid.png"):
        (tmp_path / ignored).write_text("BMI,one,two")
    (tmp_path / "folder.png").mkdir()
    source = open_source(tmp_path)
    assert source.skipped == []
    assert [frame.source for frame in source] == [str(tmp_path / n) for n in ("1.png", "6.bmp")]
    assert [path.name for path, _ in source.skipped] == ["2.png", "3.dcm", "4", "5.gif"]
    assert all(str(path) not in reason for path, reason in source.skipped)
    assert "GIF" in source.skipped[-1][1]
    list(source)
    assert len(source.skipped) == 4  # the second pass starts its list anew


def test_folder_tells_of_links_to_nowhere(tmp_path):
    write(tmp_path / "1.png", GREY8)
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "3.png").symlink_to("3.png")
    (tmp_path / "notes").symlink_to(tmp_path / "gone")
    (tmp_path / "again").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "4.png")
    source = open_source(tmp_path)
    assert [frame.source for frame in source] == [str(tmp_path / "1.png")]
    assert [path.name for path, _ in source.skipped] == ["2.png", "3.png"]
    assert "No such file" in source.skipped[0][1]


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(FrameError, match=r"pipe or a device"):
            open_source(path)


def test_a_path_that_cannot_be_looked_at(tmp_path):
    with pytest.raises(FrameError, match="File name too long"):
        open_source(tmp_path / ("a" * 300))


def test_folder_mixes_formats(tmp_path):
    write(tmp_path / "b.png", GREY8)
    write(tmp_path / "a.tif", GREY16)
    Image.fromarray(GREY8).save(tmp_path / "c.jpg")
    assert [frame.pixels.dtype.itemsize for frame in open_source(tmp_path)] == [2, 1, 1]


def test_content_counts_more_than_the_name(tmp_path):
    write(tmp_path / "a.png", GREY8).rename(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0].pixels, GREY8)
    (tmp_path / "a.dcm").rename(tmp_path / "no_suffix")
    np.testing.assert_array_equal(read(tmp_path / "no_suffix")[0].pixels, GREY8)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + bytes(99), "it is a GIF; these can be read: DICOM"),
        (b"%PDF-1.7" + bytes(99), "it is a PDF"),
        (b"plain text", "of no known format"),
    ],
)
def test_other_formats_are_named(tmp_path, data, sentence):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(FrameError, match=sentence) as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, UnsupportedFormatError) == bool(data)


def test_paths_without_images(tmp_path):
    with pytest.raises(FrameError, match=r"no file or folder .*missing"):
        open_source(tmp_path / "missing")
    with pytest.raises(FrameError, match="holds no image files"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(FrameError, match=r"None of the 1 image files .*a\.png: the file is empty"):
        list(open_source(tmp_path))
    write(tmp_path / "b.png", GREY8)
    with pytest.raises(FrameError, match="only recordings have topics"):
        open_source(f"{tmp_path / 'b.png'}#/image")


def test_hash_in_a_name_is_no_topic(tmp_path):
    assert len(read(write(tmp_path / "frame#1.png", GREY8))) == 1


def test_import_is_light():
    """No torch, no ROS, and no reader until a file asks for it."""
    script = "import sys, fedefm_core.frames; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "rclpy", "pydicom", "nibabel", "rosbags", "imagecodecs"}


def test_real_images(shared_data):
    for folder, count in (
        ("retina_drive/training/images", 20),
        ("angiography_arcade/images", 500),
    ):
        assert len(open_source_files(shared_data / folder)) == count
    (frame,) = read(shared_data / "retina_drive/training/images/21_training.tif")
    assert frame.pixels.shape == (584, 565)
    (frame,) = read(shared_data / "angiography_arcade/images/test_1.png")
    assert frame.pixels.shape == (512, 512)
    gif = next((shared_data / "retina_drive").rglob("*.gif"))
    with pytest.raises(UnsupportedFormatError, match="GIF"):
        open_source(gif)


def open_source_files(folder):
    return [path for path in folder.iterdir() if open_source(path).frame_count == 1]
