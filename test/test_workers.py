# SPDX-License-Identifier: Apache-2.0
"""Worker processes end with the process that they work for."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

# Two workers that have nothing to do, of a process that only waits.
PARENT = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from fedefm_core.workers import end_with_parent

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(2, spawn, initializer=end_with_parent)
    list(pool.map(abs, range(8)))
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("sign", ["terminate", "kill"])
def test_workers_end_with_a_killed_parent(tmp_path, sign):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert workers
    getattr(parent, sign)()
    parent.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
