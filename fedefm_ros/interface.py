# SPDX-License-Identifier: Apache-2.0
"""The topics and services of our nodes, name -> type: what a node creates its ends from.

Those of segmentation_node come first, then those of motion_guard_node, last those of the simulated
robot and what it moves.

Relative names fall in the node's namespace, '~' is the node's own name.
"""

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped, PoseWithCovarianceStamped, TwistStamped
from nav_msgs.msg import Path
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger

NODE_NAME = "segmentation_node"
KINDS = ("guidewire", "catheter")

IMAGES = {"raw": ("image", Image), "compressed": ("image/compressed", CompressedImage)}
CAMERA_INFO = "camera_info"
INPUTS = {**dict(IMAGES.values()), CAMERA_INFO: CameraInfo}

MASK = "mask"
OVERLAY = "overlay"
PROCESSING_TIME = "~/debug/processing_time_ms"
PIPELINE_LATENCY = "~/debug/pipeline_latency_ms"


def tip_pixel(kind: str) -> str:
    """Topic of a tip in pixels."""
    return f"{kind}/tip_pixel"


def tip(kind: str) -> str:
    """Topic of a tip in metres."""
    return f"{kind}/tip"


def centerline(kind: str) -> str:
    """Topic of a centreline in metres."""
    return f"{kind}/centerline"


OUTPUTS = {
    MASK: Image,
    **{tip_pixel(kind): PointStamped for kind in KINDS},
    **{tip(kind): PoseWithCovarianceStamped for kind in KINDS},
    **{centerline(kind): Path for kind in KINDS},
    OVERLAY: Image,
    PROCESSING_TIME: Float64,
    PIPELINE_LATENCY: Float64,
}

# Plain publishers, so that they speak while the node is inactive.
STATE = "state"
DIAGNOSTICS = "/diagnostics"
STATUS_OUTPUTS = {STATE: DiagnosticArray, DIAGNOSTICS: DiagnosticArray}

RESET_TRACKING = "~/reset_tracking"
SERVICES = {RESET_TRACKING: Trigger}

# motion_guard_node, which listens to segmentation_node.
GUARD_NODE_NAME = "motion_guard_node"
MOTION_PERMITTED = "motion_permitted"
MOTION_STATE = "motion_state"
GUARD_OUTPUTS = {
    MOTION_PERMITTED: Bool,
    MOTION_STATE: DiagnosticArray,
    DIAGNOSTICS: DiagnosticArray,
}

# The closed loop without a robot. follower_robot_node has CRTK's names for its topics.
ROBOT_COMMAND = "robot/servo_cv"
ROBOT_JOINTS = "robot/measured_js"
JOINTS = ("insertion", "rotation")  # m, rad
NAVIGATION_PLAN = "navigation/plan"
NAVIGATION_STATE = "navigation/state"
TRUE_TIP = "simulation/tip"
TROUBLE = "simulation/trouble"
LOOP_TOPICS = {
    ROBOT_COMMAND: TwistStamped,
    ROBOT_JOINTS: JointState,
    NAVIGATION_PLAN: Path,
    NAVIGATION_STATE: DiagnosticArray,
    TRUE_TIP: PointStamped,
    TROUBLE: String,
}
