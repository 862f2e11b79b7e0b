# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images beside the repository; skips where it is not there."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the shared images, and there is no folder {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def ros_domain_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Give this test process, and all that it starts, a ROS domain of its own.

    The domain is held by a lock on a file, so no other test process of this machine has it: not
    another worker, and not another checkout. ROS logs go to a temporary folder.
    """
    domain, lock = _claim_domain()
    with lock, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("ROS_LOG_DIR", str(tmp_path_factory.mktemp("ros_log")))
        yield domain


def _claim_domain() -> tuple[int, TextIO]:
    for domain in range(1, 101):
        path = Path(tempfile.gettempdir()) / f"fedefm_ros_domain_{domain}.lock"
        try:
            lock = path.open("w")
        except PermissionError:  # the lock of another user
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return domain, lock
    pytest.fail("all ROS domains from 1 to 100 are taken by other test processes")
