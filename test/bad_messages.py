# SPDX-License-Identifier: Apache-2.0
"""Image messages as a broken, or malicious, publisher might send them; the same for the same seed.

Each generated message comes with the reasons under which it may be counted; none of them means
that it is a right image, if an odd one, and is to be processed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import Image

Reasons = frozenset[str]
Made = tuple[Image, Reasons]

HUGE = array("B", bytes(8192 * 8192))  # made once: 64 MiB


@dataclass(frozen=True)
class BadMessage:
    """A message without a stamp, the name of what is wrong with it, the reasons that fit."""

    name: str
    message: Image
    reasons: Reasons


def image(
    data: bytes, height: int, width: int, encoding: str = "mono8", step: int | None = None
) -> Image:
    """An Image with these fields, right or wrong; step: that of mono8 by default."""
    message = Image(height=height, width=width, encoding=encoding)
    message.step = width if step is None else step
    message.data = array("B", data)
    message.header.frame_id = "xray"
    return message


def wrong_step(random: np.random.Generator) -> Made:
    step = int(random.choice([0, 1, 63, 2**31, 2**32 - 1]))
    return image(bytes(64 * 64), 64, 64, step=step), frozenset({"wrong_step", "short_data"})


def zero_size(random: np.random.Generator) -> Made:
    height, width = [(0, 64), (64, 0), (0, 0)][random.integers(3)]
    data = bytes(int(random.integers(0, 100)))
    return image(data, height, width), frozenset({"zero_size"})


def wrong_encoding(random: np.random.Generator) -> Made:
    names = [
        "",
        "mono",
        "MONO8",
        "bayer_rggb8",
        "yuv422",
        "8UC17",
        "\u2620" * 300,
        "a\x00b",
        "64FC1",
    ]
    return image(bytes(64 * 64), 64, 64, str(random.choice(names))), frozenset(
        {"unknown_encoding"}
    )


def short_data(random: np.random.Generator) -> Made:
    length = int(random.integers(0, 64 * 64))
    return image(bytes(length), 64, 64), frozenset({"short_data"})


def long_data(random: np.random.Generator) -> Made:
    length = 64 * 64 + int(random.integers(1, 1000))
    return image(bytes(length), 64, 64), frozenset({"wrong_step"})


def nan_floats(random: np.random.Generator) -> Made:
    pixels = random.random((64, 64), dtype=np.float32)
    pixels[random.integers(64), random.integers(64)] = random.choice([np.nan, np.inf, -np.inf])
    return image(pixels.tobytes(), 64, 64, "32FC1", 256), frozenset({"not_finite"})


def big_endian(random: np.random.Generator) -> Made:
    pixels = np.full((64, 64), random.integers(0, 4096)).astype(">u2")
    message = image(pixels.tobytes(), 64, 64, "mono16", 128)
    message.is_bigendian = 1
    return message, frozenset()


def one_pixel(random: np.random.Generator) -> Made:
    return image(b"\x07", 1, 1), frozenset({"too_small"})


def huge(random: np.random.Generator) -> Made:
    message = image(b"", 8192, 8192)
    message.data = HUGE
    return message, frozenset({"too_large"})


def boastful(random: np.random.Generator) -> Made:
    """Says that it is 4 G pixels wide, and is not."""
    size = int(random.choice([2**31 - 1, 2**32 - 1]))
    return image(bytes(100), size, size, step=size), frozenset({"too_large"})


def changing_size(random: np.random.Generator) -> Made:
    height, width = (int(side) for side in random.integers(32, 160, 2))
    pixels = np.full((height, width), random.integers(0, 256), np.uint8)
    return image(pixels.tobytes(), height, width), frozenset()


def noise(random: np.random.Generator) -> Made:
    """All fields at random; whatever the reason, it must have one."""
    sizes = [0, 1, 2, 31, 32, 33, 64, 2**16]
    height, width, step = (int(random.choice(sizes)) for _ in range(3))
    encoding = str(random.choice(["mono8", "mono16", "32FC1", "bgr8", "rgba8", "?"]))
    message = image(random.bytes(int(random.integers(0, 5000))), height, width, encoding, step)
    return message, frozenset({"any"})


KINDS: dict[str, Callable[[np.random.Generator], Made]] = {
    kind.__name__: kind
    for kind in (
        wrong_step,
        zero_size,
        wrong_encoding,
        short_data,
        long_data,
        nan_floats,
        big_endian,
        one_pixel,
        boastful,
        changing_size,
        noise,
    )
}


def bad_messages(seed: int, count: int, huge_every: int = 500) -> Iterator[BadMessage]:
    """Yield count messages, every kind in turn at random; now and then one of 8192 x 8192."""
    random = np.random.default_rng(seed)
    names = list(KINDS)
    for index in range(count):
        name = "huge" if index % huge_every == huge_every - 1 else str(random.choice(names))
        made = huge(random) if name == "huge" else KINDS[name](random)
        yield BadMessage(name, *made)
