# SPDX-License-Identifier: Apache-2.0
"""Image messages as plain values: every encoding, every way to be wrong, and arbitrary bytes."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.errors import FrameError
from fedefm_core.frames.encoding import (
    ENCODINGS,
    REASONS,
    decode_compressed_image,
    decode_image,
)
from fedefm_core.frames.limits import FrameLimits


def ramp(dtype: str, height: int = 3, width: int = 5) -> np.ndarray:
    return np.arange(height * width, dtype=dtype).reshape(height, width) * 3


@pytest.mark.parametrize(
    ("encoding", "dtype"),
    [("mono8", "u1"), ("8UC1", "u1"), ("mono16", "u2"), ("16UC1", "u2"), ("32FC1", "f4")],
)
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_encodings_come_back_exactly(encoding, dtype, padding, order):
    expected = ramp(dtype)
    rows = expected.astype(np.dtype(dtype).newbyteorder(order)).view("u1").reshape(3, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    pixels = decode_image(padded.tobytes(), 3, 5, encoding, padded.shape[1], order == ">")
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == expected.dtype
    assert pixels.dtype.isnative
    assert pixels.flags.aligned
    assert not pixels.flags.writeable


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("bgr8", "bgr"), ("rgb8", "rgb"), ("bgra8", "bgra"), ("rgba8", "rgba"), ("8UC3", "bgr")],
)
def test_colour_becomes_luma(encoding, order):
    values = {"r": 200, "g": 100, "b": 50, "a": 7}
    row = bytes(values[letter] for letter in order) * 4
    pixels = decode_image(row * 2, 2, 4, encoding, len(row))
    assert pixels.shape == (2, 4)
    assert abs(int(pixels[0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1


def test_grey_is_a_view_of_the_message():
    data = array("B", ramp("u1").tobytes())
    pixels = decode_image(data, 3, 5, "mono8", 5)
    data[0] = 99
    assert pixels[0, 0] == 99


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: array("B", b)])
def test_any_buffer_will_do(wrap):
    assert decode_image(wrap(b"\x07"), 1, 1, "mono8", 1) == [[7]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((b"", 0, 5, "mono8", 5), "zero_size"),
        ((b"", 3, 0, "mono8", 0), "zero_size"),
        ((bytes(15), 3, 5, "bayer_rggb8", 5), "unknown_encoding"),
        ((bytes(15), 3, 5, "", 5), "unknown_encoding"),
        ((bytes(15), 3, 5, "mono8", 4), "wrong_step"),
        ((bytes(15), 3, 5, "mono16", 5), "wrong_step"),
        ((bytes(31), 3, 5, "mono16", 10), "wrong_step"),
        ((bytes(14), 3, 5, "mono8", 5), "short_data"),
        ((bytes(15), 3, 5, "mono8", 2**32 - 1), "short_data"),
        ((b"", 2**32 - 1, 2**32 - 1, "mono8", 2**32 - 1), "too_large"),
        ((np.float32([np.nan]).tobytes(), 1, 1, "32FC1", 4), "not_finite"),
        ((np.float32([0, -np.inf]).tobytes(), 1, 2, "32FC1", 8), "not_finite"),
        ((None, 3, 5, "mono8", 5), "unreadable"),
    ],
)
def test_what_is_wrong_is_named(arguments, reason):
    with pytest.raises(FrameError) as caught:
        decode_image(*arguments)
    assert caught.value.reason == reason


def test_limits_are_honoured():
    limits = FrameLimits(max_pixels_per_frame=14)
    with pytest.raises(FrameError, match="15 pixels") as caught:
        decode_image(bytes(15), 3, 5, "mono8", 5, limits=limits)
    assert caught.value.reason == "too_large"


def outcome(decode):
    """Shape of the image decoded, or the reason why there is none."""
    try:
        return decode().shape
    except FrameError as error:
        return error.reason


@settings(max_examples=500, deadline=None)
@given(
    data=st.binary(max_size=256),
    height=st.integers(-2, 40) | st.integers(0, 2**32),
    width=st.integers(-2, 40) | st.integers(0, 2**32),
    encoding=st.sampled_from(sorted(ENCODINGS)) | st.text(max_size=8),
    step=st.integers(-2, 200) | st.integers(0, 2**32),
    is_bigendian=st.booleans(),
)
def test_nothing_but_an_image_or_a_frame_error(data, height, width, encoding, step, is_bigendian):
    def decode():
        return decode_image(data, height, width, encoding, step, is_bigendian)

    assert outcome(decode) in {*REASONS, (height, width)}


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_compressed_images(extension):
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 30), "u1"), (9, 9), 3)
    payload = cv2.imencode(f".{extension}", image)[1].tobytes()
    pixels = decode_compressed_image(array("B", payload), "mono8; jpeg compressed bgr8")
    assert np.abs(pixels.astype(int) - image).max() <= (0 if extension == "png" else 8)
    assert not pixels.flags.writeable


def test_compressed_16_bit_png():
    image = ramp("u2") * 1000
    payload = cv2.imencode(".png", image)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed_image(payload, "png"), image)


@pytest.mark.parametrize(
    ("payload", "format_name", "reason"),
    [
        (b"", "jpeg", "zero_size"),
        (b"not an image", "jpeg", "unknown_encoding"),
        (b"\x89PNG\r\n\x1a\n" + bytes(3), "png", "short_data"),
        (bytes(10), "16UC1; compressedDepth png", "unknown_encoding"),
    ],
)
def test_bad_compressed_images(payload, format_name, reason):
    with pytest.raises(FrameError) as caught:
        decode_compressed_image(payload, format_name)
    assert caught.value.reason == reason


@pytest.mark.parametrize("extension", ["png", "jpg"])
@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 7))))
def test_damaged_compressed_images(extension, cut, flips):
    image = np.random.default_rng(0).integers(0, 256, (10, 10), "u1")
    payload = bytearray(cv2.imencode(f".{extension}", image)[1].tobytes())
    for position, bit in flips:
        payload[position % len(payload)] ^= 1 << bit
    shape = outcome(lambda: decode_compressed_image(payload[:cut], ""))
    assert shape in REASONS or len(shape) == 2
