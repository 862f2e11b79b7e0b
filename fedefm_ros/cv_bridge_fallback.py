# SPDX-License-Identifier: Apache-2.0
"""The distribution's cv_bridge, for encodings that we do not read ourselves (Bayer, YUV).

It may be missing, or built for another numpy: then it fails to import, or kills the process at
its first call. So it is tried out in a process of its own before it is let in here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image

from fedefm_core.errors import FrameError

TRIAL_TIMEOUT_S = 20.0
TRIAL = """
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
image = Image(height=4, width=4, encoding="bayer_rggb8", step=4, data=bytes(range(16)))
assert CvBridge().imgmsg_to_cv2(image, "mono8").shape == (4, 4)
"""


def find_cv_bridge(
    warn: Callable[[str], object],
) -> Callable[[Image], npt.NDArray[np.generic]] | None:
    """Return a function that converts an Image to (H, W) uint8, or None when there is none.

    The function raises FrameError. warn is told why a cv_bridge that is installed is not used.
    """
    if find_spec("cv_bridge") is None:
        return None
    problem = _try_out()
    if problem:
        warn(f"cv_bridge is installed, but fails here and is not used: {problem}")
        return None
    from cv_bridge import CvBridge

    bridge = CvBridge()

    def convert(message: Image) -> npt.NDArray[np.generic]:
        try:
            pixels = np.asarray(bridge.imgmsg_to_cv2(message, "mono8"))
        except Exception as error:  # its own errors, OpenCV's and numpy's
            raise FrameError(
                f"cv_bridge cannot convert '{message.encoding:.40}': {error}",
                reason="unknown_encoding",
            ) from error
        if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.size == 0:
            raise FrameError(
                f"cv_bridge made no grey image of '{message.encoding:.40}'", reason="unreadable"
            )
        return pixels

    return convert


def _try_out() -> str:
    """Convert one image in another process; '' when that went well."""
    try:
        trial = subprocess.run(
            [sys.executable, "-c", TRIAL], capture_output=True, timeout=TRIAL_TIMEOUT_S, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if trial.returncode == 0:
        return ""
    last_line = (trial.stderr.strip() or "no message").splitlines()[-1]
    return f"exit code {trial.returncode}, {last_line}"
