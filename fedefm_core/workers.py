# SPDX-License-Identifier: Apache-2.0
"""What every worker process needs: an end when the process that it works for is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Make this worker end when its parent does, however that ends; called once, at its start.

    A pool's workers wait for work on a pipe that they hold both ends of: a parent that is killed
    would leave them waiting for ever.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that multiprocessing started has a parent to watch"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
