# SPDX-License-Identifier: Apache-2.0
"""to_grey8: the window function of DICOM, percentiles without a window, and odd images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedefm_core.frames import Frame, Window, to_grey8


def window_of_the_standard(values, center, width):
    """PS3.3 C.11.2.1.2.1 as it is written there, y from 0 to 255."""
    values = np.asarray(values, np.float64)
    middle = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    below, above = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return np.where(values <= below, 0, np.where(values > above, 255, middle))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize(("center", "width"), [(128, 256), (100, 50), (40.5, 3), (2048, 4096)])
def test_window_is_that_of_the_standard(dtype, center, width):
    least, most = (-3000, 6000) if dtype in (np.int16, np.float32) else (0, 255)
    values = np.arange(least, most + 1).astype(dtype)[None]
    grey = to_grey8(Frame(values, window=Window(center, width)))
    assert grey.dtype == np.uint8
    np.testing.assert_allclose(grey, window_of_the_standard(values, center, width), atol=0.51)


def test_window_of_width_one_is_a_threshold():
    grey = to_grey8(Frame(np.uint16([[99, 100, 101]]), window=Window(100.5, 1)))
    np.testing.assert_array_equal(grey, [[0, 0, 255]])


def test_8_bit_without_window_passes_without_a_copy():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert to_grey8(Frame(pixels)) is pixels
    np.testing.assert_array_equal(to_grey8(Frame(pixels, inverted=True)), 255 - pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_percentiles_ignore_a_few_hot_pixels(dtype):
    pixels = np.tile(np.linspace(1000, 2000, 512).astype(dtype), (512, 1))
    pixels[::100, ::100] = 30000
    grey = to_grey8(Frame(pixels)).astype(float)
    assert grey[1, 0] == 0
    assert grey[1, -1] == 255
    assert abs(grey[1, 256] - 127.5) < 3
    assert np.all(np.diff(grey[1]) >= 0)


def test_inverted_turns_every_grey_level_round():
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for window in (None, Window(2000, 1000)):
        plain, inverted = (to_grey8(Frame(pixels, window=window, inverted=i)) for i in (0, 1))
        np.testing.assert_array_equal(inverted, 255 - plain)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("value", [0, 77])
def test_an_image_of_one_value_is_black(dtype, value):
    assert not to_grey8(Frame(np.full((5, 7), value, dtype))).any()


def test_what_is_not_finite_counts_as_the_least_value():
    pixels = np.float32([[np.nan, np.inf, -np.inf, 10, 20]])
    np.testing.assert_array_equal(
        to_grey8(Frame(pixels, window=Window(15.5, 11))), [[0, 0, 0, 0, 255]]
    )
    assert not to_grey8(Frame(np.full((3, 3), np.nan, np.float32))).any()


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    dtype=st.sampled_from(["u1", "u2", "i2", "f4"]),
    seed=st.integers(0, 2**16),
    window=st.none() | st.builds(Window, st.floats(-1e6, 1e6), st.floats(-10, 1e6)),
    inverted=st.booleans(),
)
def test_any_frame_gives_8_bit_of_its_size(height, width, dtype, seed, window, inverted):
    data = np.random.default_rng(seed).bytes(height * width * np.dtype(dtype).itemsize)
    pixels = np.frombuffer(data, dtype).reshape(height, width)
    grey = to_grey8(Frame(pixels, window=window, inverted=inverted))
    assert (grey.shape, grey.dtype) == ((height, width), np.uint8)
