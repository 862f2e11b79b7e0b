# SPDX-License-Identifier: Apache-2.0
"""Two views on one machine: segmentation_node and guard for each, in namespaces of their own."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install the extra 'ros'")

from geometry_msgs.msg import PointStamped
from guard_bench import MODULE as GUARD
from guard_bench import PATIENT
from model_fixture import draw_instruments, write_threshold_model
from ros_peer import peer, running, wait_until
from segmentation_bench import CAMERA_PERIOD_S
from segmentation_bench import MODULE as SEGMENTATION
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Header

from fedefm_ros.messages import array_to_image, image_to_array, ns_to_stamp
from fedefm_ros.qos import image_qos, output_qos, permission_qos

pytestmark = [pytest.mark.ros, pytest.mark.slow]

TIPS = {"frontal": (90.0, 80.0), "lateral": (50.0, 30.0)}
VIEWS = {
    name: draw_instruments(guidewire=[(0.0, 30.0), (40.0, 40.0), tip])
    for name, tip in TIPS.items()
}
PATIENT_ARGUMENTS = [word for setting in PATIENT for word in ("-p", setting)]


def test_two_views_do_not_meet(tmp_path: Path) -> None:
    model = write_threshold_model(tmp_path / "threshold.onnx")

    def start(module: str, name: str, *arguments: str) -> object:
        log = tmp_path / f"{name}_{module.rpartition('.')[2]}.txt"
        return running(module, log, *arguments, "-r", f"__ns:=/{name}")

    settings = ("-p", f"model:={model}", "-p", "threads:=1", "-p", "autostart:=true")
    with (
        start(SEGMENTATION, "frontal", *settings),
        start(SEGMENTATION, "lateral", *settings),
        start(GUARD, "frontal", *PATIENT_ARGUMENTS),
        start(GUARD, "lateral", *PATIENT_ARGUMENTS),
        peer() as robot,
    ):
        images = {n: robot.publisher(f"/{n}/image", Image, image_qos()) for n in VIEWS}
        masks = {n: robot.listen(f"/{n}/mask", Image, output_qos()) for n in VIEWS}
        tips = {
            n: robot.listen(f"/{n}/guidewire/tip_pixel", PointStamped, output_qos()) for n in VIEWS
        }
        heard = {n: robot.listen(f"/{n}/motion_permitted", Bool, permission_qos()) for n in VIEWS}
        sent: dict[str, set[int]] = {name: set() for name in VIEWS}

        def send(*names: str) -> None:
            for name in names:
                stamp_ns = time.time_ns()
                sent[name].add(stamp_ns)
                header = Header(stamp=ns_to_stamp(stamp_ns), frame_id=name)
                images[name].publish(array_to_image(VIEWS[name], header))

        def permitted(name: str) -> bool:
            return bool(heard[name]) and heard[name][-1].data

        def both() -> bool:
            send(*VIEWS)
            return all(map(permitted, VIEWS)) and all(len(tips[n]) > 20 for n in VIEWS)

        wait_until(both, "permission in both views", every=CAMERA_PERIOD_S)
        for name, other in (("frontal", "lateral"), ("lateral", "frontal")):
            for mask in masks[name]:
                stamp_ns = mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec
                assert stamp_ns in sent[name] - sent[other]
                assert mask.header.frame_id == name
                assert np.array_equal(image_to_array(mask) == 2, VIEWS[name] < 40)
            for tip in tips[name]:
                assert np.hypot(tip.point.x - TIPS[name][0], tip.point.y - TIPS[name][1]) < 4

        def frontal_alone() -> bool:
            send("frontal")
            return not permitted("lateral")

        wait_until(frontal_alone, "no permission without images", every=CAMERA_PERIOD_S)
        heard["lateral"].clear()
        heard["frontal"].clear()

        def still() -> bool:
            send("frontal")
            return len(heard["lateral"]) >= 50 and any(one.data for one in heard["frontal"])

        wait_until(still, "the other view goes on", every=CAMERA_PERIOD_S)
        assert not any(one.data for one in heard["lateral"])
