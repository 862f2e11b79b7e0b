# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from fedefm_core.errors import FrameError
from fedefm_core.evaluation.frame_names import file_stem, find_clash, named_frames
from fedefm_core.frames import Frame


def frames(*sources):
    counts = {}
    for source in sources:
        index = counts[source] = counts.get(source, -1) + 1
        yield Frame(np.zeros((2, 2), np.uint8), source=source, index=index)


def names(source):
    return [(named.name, named.first) for named in named_frames(source)]


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a/b/0002.DCM", "0002"),
        ("ct.nii.gz", "ct"),
        ("ct.NII.GZ", "ct"),
        ("two.parts.png", "two.parts"),
        ("1.2.840.10008.5", "1.2.840.10008.5"),
        ("IM_0001", "IM_0001"),
        (".png", ".png"),
        ("clip.mp4", "clip"),
    ],
)
def test_file_stem(path, stem):
    assert file_stem(path) == stem


def test_single_and_several_frames():
    found = names(frames("a.png", "b.dcm", "b.dcm", "b.dcm", "c.png", "d.dcm", "d.dcm"))
    assert found == [
        ("a", True),
        ("b_0001", True),
        ("b_0002", False),
        ("b_0003", False),
        ("c", True),
        ("d_0001", True),
        ("d_0002", False),
    ]
    assert names(frames()) == []


def test_frame_numbers_beyond_four_digits_do_not_collide():
    found = [n for n, _ in names(frames(*["a"] * 10001))]
    assert (found[-2], found[-1]) == ("a_10000", "a_10001")


def test_a_recording_is_named_after_its_file(tmp_path):
    assert names(frames(*["a/rec.mcap#/camera/image"] * 2))[0] == ("rec_0001", True)
    odd = tmp_path / "folder#" / "a.png"
    odd.parent.mkdir()
    odd.touch()
    assert names(frames(str(odd))) == [("a", True)]


def test_find_clash():
    a, b, c = Path("x/a.png"), Path("x/A.dcm"), Path("x/c.png")
    assert find_clash([a, c]) is None
    assert find_clash([a, c, b]) == (a, b)


def test_an_error_comes_after_the_frames_before_it():
    def broken(good):
        yield from frames(*["a.dcm"] * good)
        raise FrameError("a.dcm: truncated")

    for good, expected in [(0, []), (1, ["a_0001"]), (2, ["a_0001", "a_0002"])]:
        seen = []
        with pytest.raises(FrameError, match="truncated"):  # noqa: PT012 - what came before counts
            for named in named_frames(broken(good)):
                seen.append(named.name)
        assert seen == expected
