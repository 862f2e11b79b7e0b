# SPDX-License-Identifier: Apache-2.0
"""Frames to network images and coordinates back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedefm_core.errors import FrameError
from fedefm_core.frames import Frame
from fedefm_core.perception.preprocess import fit, preprocess

sizes = st.tuples(st.integers(1, 1500), st.integers(1, 1500))
network_sizes = st.tuples(st.sampled_from([32, 128, 512]), st.sampled_from([32, 256, 512]))


def test_a_frame_that_fits_is_not_copied() -> None:
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    image, box = preprocess(Frame(pixels), (64, 64))
    assert np.shares_memory(image, pixels)
    np.testing.assert_array_equal(box.to_network(np.array([[3.0, 5.0]])), [[3.0, 5.0]])


def test_pixel_centers_map_exactly() -> None:
    box = fit((256, 512), (512, 512))
    assert (box.content_size, box.offset) == ((256, 512), (128, 0))
    half = fit((1024, 1024), (512, 512))
    # the corner of the first pixel is the corner of the image on both sides
    np.testing.assert_allclose(half.to_network(np.array([-0.5, -0.5])), [-0.5, -0.5])
    np.testing.assert_allclose(half.to_network(np.array([0.5, 0.5])), [0.0, 0.0])
    np.testing.assert_allclose(half.covariance_to_input(np.eye(2)), 4 * np.eye(2))


@settings(max_examples=100, deadline=None)
@given(input_size=sizes, network_size=network_sizes, x=st.floats(0, 1), y=st.floats(0, 1))
def test_coordinates_go_there_and_back(
    input_size: tuple[int, int], network_size: tuple[int, int], x: float, y: float
) -> None:
    box = fit(input_size, network_size)
    point = np.array([x * input_size[1], y * input_size[0]]) - 0.5
    there = box.to_network(point)
    np.testing.assert_allclose(box.to_input(there), point, atol=1e-9)
    low = np.array(box.offset[::-1]) - 0.5
    assert (there >= low - 1e-9).all()
    assert (there <= low + np.array(box.content_size[::-1]) + 1e-9).all()


@settings(max_examples=50, deadline=None)
@given(input_size=sizes, network_size=network_sizes)
def test_images_and_label_maps_have_the_right_size(
    input_size: tuple[int, int], network_size: tuple[int, int]
) -> None:
    image, box = preprocess(Frame(np.full(input_size, 77, np.uint8)), network_size)
    assert image.shape == network_size
    assert image.flags.c_contiguous
    assert (image == 77).all()
    back = box.label_map_to_input(np.ones(network_size, np.uint8))
    assert back.shape == input_size
    assert (back == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    image, box = preprocess(Frame(np.zeros(size, np.uint16)), (512, 512))
    assert image.shape == (512, 512)
    assert box.label_map_to_input(image).shape == size


def test_a_label_map_goes_back_to_where_it_was() -> None:
    labels = np.zeros((300, 200), np.uint8)
    labels[120:150, 40:90] = 1
    box = fit(labels.shape, (512, 512))
    image, _ = preprocess(Frame(labels * 255), (512, 512))
    back = box.label_map_to_input((image > 127).astype(np.uint8))
    assert (back != labels).sum() <= 160  # a rim one pixel wide at most


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (4, 4, 3), (7,)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match=r"\(height, width\)"):
        preprocess(Frame(np.zeros(shape, np.uint8)), (64, 64))
