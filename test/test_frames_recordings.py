# SPDX-License-Identifier: Apache-2.0
"""Videos, NIfTI stacks and ROS recordings."""

from __future__ import annotations

import cv2
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from fedefm_core.errors import FrameError, FrameLimitError
from fedefm_core.frames import FrameLimits, open_source

TYPES = get_typestore(Stores.ROS2_HUMBLE)
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path, **limits):
    return list(open_source(path, FrameLimits(**limits)))


def damaged(data, flips, share):
    data = bytearray(data)
    for place, bit in flips:
        data[int(place * (len(data) - 1))] ^= 1 << bit
    return bytes(data[: int(share * len(data))] if share < 0.9 else data)


def frames_or_frame_error(path):
    try:
        frames = read(path)
    except FrameError:
        return
    assert all(frame.pixels.ndim == 2 for frame in frames)


FLIPS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=8)


# Videos


def write_video(path, levels, codec="MJPG", rate=25.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, (64, 48))
    assert writer.isOpened()
    for level in levels:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "MJPG")]
)
def test_video(tmp_path, name, codec):
    path = write_video(tmp_path / name, range(0, 200, 20), codec)
    source = open_source(path)
    assert source.frame_rate_hz == pytest.approx(25)
    frames = list(source)
    assert len(frames) == source.frame_count == 10
    assert [frame.stamp_ns for frame in frames] == [40_000_000 * index for index in range(10)]
    np.testing.assert_allclose([f.pixels.mean() for f in frames], range(0, 200, 20), atol=3)
    assert (frames[3].pixels.shape, frames[3].index) == ((48, 64), 3)
    assert not frames[0].pixels.flags.writeable


def test_video_limits(tmp_path):
    path = write_video(tmp_path / "a.avi", [0, 1, 2])
    for limits in ({"max_width": 63}, {"max_frames": 2}):
        with pytest.raises(FrameLimitError, match="the limit is"):
            read(path, **limits)


def test_percent_sign_in_a_name_is_no_pattern(tmp_path):
    assert len(read(write_video(tmp_path / "100%d.avi", [0]))) == 1


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v")])
def test_truncated_video(tmp_path, name, codec):
    path = write_video(tmp_path / name, range(0, 200, 4), codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FrameError, match=str(path)):
        read(path)


# NIfTI


def write_nifti(path, voxels, slope=None, intercept=None, zooms=None, second=False):
    image = (nib.Nifti2Image if second else nib.Nifti1Image)(voxels, np.eye(4))
    if zooms:
        image.header.set_zooms(zooms)
    if slope is not None:
        image.header.set_slope_inter(slope, intercept)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f4"])
def test_nifti_stack(tmp_path, name, second, dtype):
    voxels = np.arange(5 * 4 * 3).reshape(5, 4, 3).astype(dtype)
    path = write_nifti(tmp_path / name, voxels, zooms=(0.5, 0.7, 2.0), second=second)
    frames = read(path)
    assert [frame.index for frame in frames] == [0, 1, 2]
    for frame in frames:  # pixels[j, i] is voxel (i, j, k)
        np.testing.assert_array_equal(frame.pixels, voxels[:, :, frame.index].T)
    assert frames[0].pixels.dtype == voxels.dtype
    assert frames[0].spacing.pixel_spacing_mm == pytest.approx((0.7, 0.5))
    assert frames[0].spacing.imager_pixel_spacing_mm is None


@pytest.mark.parametrize(
    ("dtype", "as_read"), [("i1", "i2"), ("i4", "f4"), ("u4", "f4"), ("f8", "f4")]
)
def test_nifti_types_that_a_frame_lacks(tmp_path, dtype, as_read):
    voxels = np.arange(20).reshape(5, 4).astype(dtype)
    (frame,) = read(write_nifti(tmp_path / "a.nii", voxels))
    np.testing.assert_array_equal(frame.pixels, voxels.T)
    assert frame.pixels.dtype == as_read


def test_nifti_scale(tmp_path):
    stored = np.arange(20, dtype=np.int16).reshape(5, 4)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(2, -10)
    path = tmp_path / "a.nii"
    with path.open("wb") as file:
        image.header["vox_offset"], image.header["magic"] = 352, b"n+1"
        file.write(image.header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    (frame,) = read(path)
    np.testing.assert_array_equal(frame.pixels, stored.T * 2.0 - 10)
    np.testing.assert_array_equal(frame.pixels, np.asarray(nib.load(path).dataobj).T)


def test_nifti_big_endian(tmp_path):
    voxels = np.arange(20, dtype=">i2").reshape(5, 4)
    image = nib.Nifti1Image(voxels, np.eye(4), nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "a.nii")
    (frame,) = read(tmp_path / "a.nii")
    np.testing.assert_array_equal(frame.pixels, voxels.T)
    assert frame.pixels.dtype.isnative


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [((3, 3, 3, 2), r"2 or 3 axes .got the shape \(3, 3, 3, 2"), ((70, 2, 2), "70 x 2 pixels")],
)
def test_nifti_refused(tmp_path, shape, sentence):
    path = write_nifti(tmp_path / "a.nii", np.zeros(shape, np.uint8))
    with pytest.raises(FrameError, match=sentence):
        read(path, max_width=64)


def test_nifti_with_one_time_point(tmp_path):
    assert len(read(write_nifti(tmp_path / "a.nii", np.zeros((4, 4, 3, 1), np.uint8)))) == 3


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated_nifti(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 5), np.uint8)
    path = write_nifti(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(FrameError, match="truncated"):
        read(path)


@FUZZ
@given(flips=FLIPS, share=st.floats(0, 1))
def test_damaged_nifti(tmp_path, flips, share):
    path = write_nifti(tmp_path / "a.nii", np.zeros((4, 4, 2), np.int16))
    path.write_bytes(damaged(path.read_bytes(), flips, share))
    frames_or_frame_error(path)


def test_real_ct(shared_data):
    source = open_source(shared_data / "ct" / "skull.nii.gz")
    pixels = np.stack([frame.pixels for frame in source])
    assert pixels.shape == (178, 194, 198)
    assert pixels.min() < -900  # air
    assert pixels.max() > 1000  # bone


# Recordings


def header(stamp_ns):
    stamp = TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    return TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id="detector")


def image_message(stamp_ns, pixels, encoding="mono8", padding=0, is_bigendian=0):
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return TYPES.types["sensor_msgs/msg/Image"](
        header=header(stamp_ns),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def compressed_message(stamp_ns, pixels, suffix="png"):
    data = cv2.imencode(f".{suffix}", pixels)[1].reshape(-1)
    kind = TYPES.types["sensor_msgs/msg/CompressedImage"]
    return kind(header=header(stamp_ns), format=suffix, data=data)


def write_bag(path, topics, storage=StoragePlugin.MCAP):
    """topics: {name: [messages]}; written at 10 Hz, with a text topic beside them."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        text = TYPES.types["std_msgs/msg/String"](data="hello")
        for topic, messages in {"/chatter": [text], **topics}.items():
            name = messages[0].__msgtype__
            connection = writer.add_connection(topic, name, typestore=TYPES)
            for index, message in enumerate(messages):
                data = TYPES.serialize_cdr(message, name)
                writer.write(connection, 10**9 + index * 10**8, data)
    return path


RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.mark.parametrize("storage", StoragePlugin)
def test_bag_with_one_image_topic(tmp_path, storage):
    messages = [image_message(7 * 10**9 + index, RAMP + index, padding=3) for index in range(4)]
    folder = write_bag(tmp_path / "bag", {"/xray": messages}, storage)
    suffix = ".mcap" if storage == StoragePlugin.MCAP else ".db3"
    (file,) = folder.glob(f"*{suffix}")
    for path in (folder, file):
        source = open_source(path)
        assert source.frame_rate_hz == pytest.approx(10)
        for index, frame in enumerate(source):
            np.testing.assert_array_equal(frame.pixels, RAMP + index)
            assert (frame.stamp_ns, frame.index) == (7 * 10**9 + index, index)
            assert frame.source == f"{path}#/xray"
        assert source.frame_count == 4


def test_bag_topic_is_chosen_by_the_path(tmp_path):
    topics = {
        "/raw": [
            image_message(
                1, (RAMP.astype(np.uint16) * 1000).astype(">u2"), "mono16", is_bigendian=1
            )
        ],
        "/zipped": [compressed_message(2, RAMP)],
    }
    path = write_bag(tmp_path / "bag", topics)
    (frame,) = open_source(f"{path}#/raw")
    np.testing.assert_array_equal(frame.pixels, RAMP.astype(np.uint16) * 1000)
    source = open_source(f"{path}#/zipped")
    np.testing.assert_array_equal(next(iter(source)).pixels, RAMP)
    assert source.name == f"{path}#/zipped"
    with pytest.raises(FrameError, match=r"'path#topic'.* /raw, /zipped"):
        open_source(path)
    with pytest.raises(FrameError, match=r"no image topic '/chatter'.* /raw, /zipped"):
        open_source(f"{path}#/chatter")


def test_bag_without_images(tmp_path):
    path = write_bag(tmp_path / "bag", {})
    with pytest.raises(FrameError, match="its image topics: none"):
        open_source(path)


def test_bag_with_a_bad_message(tmp_path):
    bad = image_message(1, RAMP, "yuv422")
    path = write_bag(tmp_path / "bag", {"/xray": [image_message(0, RAMP), bad]})
    frames = iter(open_source(path))
    assert next(frames).index == 0
    with pytest.raises(FrameError, match=r"in message 1, the encoding .*'yuv422'") as caught:
        next(frames)
    assert caught.value.reason == "unknown_encoding"


def test_bag_limits(tmp_path):
    path = write_bag(tmp_path / "bag", {"/xray": [image_message(0, RAMP)] * 3})
    for limits in ({"max_width": 7}, {"max_frames": 2}):
        with pytest.raises(FrameLimitError, match="the limit is"):
            read(path, **limits)


@pytest.fixture(scope="module", params=list(StoragePlugin), ids=lambda plugin: plugin.name)
def small_recording(request, tmp_path_factory):
    """A recording of one image: its storage file, and the bytes of it."""
    folder = tmp_path_factory.mktemp("small") / "bag"
    write_bag(folder, {"/xray": [image_message(0, RAMP)]}, request.param)
    path = next(path for path in folder.iterdir() if path.name != "metadata.yaml")
    return path, path.read_bytes()


@FUZZ
@given(flips=FLIPS, share=st.floats(0, 1))
def test_damaged_bag(small_recording, flips, share):
    path, data = small_recording
    path.write_bytes(damaged(data, flips, share))
    frames_or_frame_error(path)
