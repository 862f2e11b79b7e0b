# SPDX-License-Identifier: Apache-2.0
"""segmentation_node on a machine where the build of an engine takes a while and then fails.

Run with 'python -m node_that_builds'. The file named by FAKE_BUILD_GOES_ON keeps the build going.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from fedefm_core.errors import EngineError
from fedefm_core.perception.runtimes.tensorrt.progress import Progress
from fedefm_ros import segmentation_node


def build(path: Path, tell: Callable[[Progress], None], stop: Callable[[], bool]) -> bool:
    """In place of ensure_engine."""
    while Path(os.environ["FAKE_BUILD_GOES_ON"]).exists() and not stop():
        tell(Progress(0.25, 5.0, 15.0, "timing"))
        time.sleep(0.02)
    raise EngineError("no kernel for this layer")


if __name__ == "__main__":
    segmentation_node.ensure_engine = build
    segmentation_node.main()
