# SPDX-License-Identifier: Apache-2.0
"""Parity: each measure from outputs whose differences are known."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs torch")

from fedefm_core.errors import ParityError
from fedefm_core.export.parity import enforce, measure, table, tip_peak
from fedefm_core.perception import NetworkOutput

IMAGE = np.zeros((16, 16), np.uint8)


def model(catheter_pixels: int = 100, tip: tuple[int, int] | None = (1, 2)):
    """A model that calls the first pixels catheter and sees the catheter's tip in one cell."""
    labels = np.zeros((16, 16), np.uint8)
    labels.flat[:catheter_pixels] = 1
    heatmap = np.zeros((2, 4, 4), np.float32)
    if tip is not None:
        heatmap[0, tip[0], tip[1]] = 0.9
    return lambda _: NetworkOutput(labels, labels, heatmap)


def compare(reference, candidate, frames=2):
    return measure(reference, candidate, [IMAGE] * frames, ("old", "new"))


def test_equal_models_have_no_drift():
    parity = compare(model(), model())
    assert (parity.pixel_drift, parity.foreground_drift) == (0, 0)
    assert (parity.frames, parity.pixels, parity.foreground_pixels) == (2, 512, 200)
    assert (parity.tips_in_both, parity.tip_shift_px_median, parity.tip_shift_px_max) == (2, 0, 0)
    enforce(parity, "fp32")


def test_drift_is_relative_to_the_references_foreground():
    parity = compare(model(100), model(97))
    assert parity.foreground_drift == pytest.approx(0.03)
    assert parity.pixel_drift == pytest.approx(3 / 256)


def test_another_instrument_on_the_same_pixels_is_drift():
    def guidewire(image):
        output = model()(image)
        return output.__class__(2 * output.label_map, output.probability, output.tip_heatmap)

    assert compare(model(), guidewire).foreground_drift == pytest.approx(1.0)


@pytest.mark.parametrize(("pixels", "passes"), [(102, True), (103, False)])
def test_limit_of_int8_is_two_percent(pixels, passes):
    parity = compare(model(100), model(pixels))
    if passes:
        enforce(parity, "int8")
    else:
        with pytest.raises(
            ParityError, match=r"new drifted from old: foreground drift 0\.03 over"
        ):
            enforce(parity, "int8")


def test_one_pixel_in_512_is_too_much_for_fp32():
    with pytest.raises(ParityError, match="pixel drift"):
        enforce(compare(model(100), model(101)), "fp32")


def test_blind_reference_cannot_vouch_for_int8():
    with pytest.raises(ParityError, match="finds no instrument in 2 frames"):
        enforce(compare(model(0), model(0)), "int8")


def test_tip_shift_is_in_pixels():
    parity = compare(model(tip=(1, 1)), model(tip=(1, 2)))
    assert parity.tip_shift_px_median == pytest.approx(4.0)


def test_tips_that_only_one_sees_are_counted_apart():
    lost, gained = compare(model(), model(tip=None)), compare(model(tip=None), model())
    assert (lost.tips_lost, lost.tips_gained, lost.tip_shift_px_max) == (2, 0, None)
    assert (gained.tips_lost, gained.tips_gained) == (0, 2)
    assert table([lost])[1][0] == "new with old"


def test_no_images_are_an_error():
    with pytest.raises(ParityError, match="at least one image"):
        compare(model(), model(), frames=0)


def test_peak_of_a_cell_is_at_its_centre():
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 3] = 0.5
    np.testing.assert_allclose(tip_peak(heatmap), [4 * 3 + 1.5, 1.5])


def test_peak_lies_between_cells_that_share_it():
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[2, 1] = heatmap[2, 2] = 0.8
    np.testing.assert_allclose(tip_peak(heatmap), [4 * 1.5 + 1.5, 4 * 2 + 1.5])


def test_low_peak_is_no_tip():
    assert tip_peak(np.full((4, 4), 0.49, np.float32)) is None
