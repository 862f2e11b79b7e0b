# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fedefm_ros.transport import claim_domain

# A busy machine must not fail a test: no property is about time.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images beside the repository; skips where it is not there."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the shared images, and there is no folder {folder}")
    return folder


@pytest.fixture(autouse=True)
def nobody_left_in_the_domain(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take what a test made of ROS out of the domain before the next one looks around there.

    rclpy's entities refer to each other: a node that was destroyed, and its DDS participant, live
    on until Python collects garbage, and other tests would find them.
    """
    yield
    if request.node.get_closest_marker("ros"):
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def ros_domain_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Give this test process, and all that it starts, a ROS domain of its own.

    No other process of this machine has it: not another worker, another checkout or a demo. ROS
    logs go to a temporary folder.
    """
    domain, claim = claim_domain()
    with claim, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("ROS_LOG_DIR", str(tmp_path_factory.mktemp("ros_log")))
        yield domain
