# SPDX-License-Identifier: Apache-2.0
"""Build of the one ament_python package 'fedefm_ros': the library fedefm_core and its ROS glue.

The bounds here are lower bounds; constraints.txt pins what was tested.
"""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "fedefm_ros"
DISTRO = "ros-kilted"
X86_LINUX = "sys_platform == 'linux' and platform_machine == 'x86_64'"


def shared_files(folder):
    """Return the data_files entry that installs the files of a folder into the package's share."""
    files = sorted(str(path) for path in Path(folder).glob("*") if path.is_file())
    return (f"share/{NAME}/{folder}", files)


RUNTIME = [
    "imagecodecs>=2024.12.30",
    "matplotlib>=3.8",
    "networkx>=3.2",
    "nibabel>=5.2",
    "numpy>=1.26",
    "onnx>=1.17",
    "onnxruntime>=1.19",
    "opencv-python-headless>=4.10",
    "openvino>=2025.0",
    "pydantic>=2.8",
    "pydicom>=3.0.2",
    "pyyaml>=6.0.1",
    "rich>=13.8",
    "rosbags>=0.10.10",
    "typer>=0.15",
]
EXTRAS = {
    "ros": [
        f"{DISTRO}-rclpy>=9.1",
        f"{DISTRO}-rmw-fastrtps-cpp>=9.3",
        f"{DISTRO}-diagnostic-msgs>=5.5",
        f"{DISTRO}-geometry-msgs>=5.5",
        f"{DISTRO}-lifecycle-msgs>=2.3",
        f"{DISTRO}-nav-msgs>=5.5",
        f"{DISTRO}-sensor-msgs>=5.5",
        f"{DISTRO}-std-msgs>=5.5",
        f"{DISTRO}-std-srvs>=5.5",
    ],
    "train": [
        "geomloss>=0.3.1",
        "monai>=1.4",
        "nncf>=2.19",
        "onnxscript>=0.5",
        "pot>=0.9.5",
        "safetensors>=0.4.5",
        "tensorboard>=2.17",
        "torch==2.13.0",
    ],
    # parses and builds engines on a machine without a GPU: for tests, never for the demo
    "tensorrt-build": [
        f"tensorrt-rtx-cu13-bindings>=1.7; {X86_LINUX}",
        f"tensorrt-rtx-cu13-libs>=1.7; {X86_LINUX}",
    ],
    "tensorrt": [
        "cuda-python>=12.8; sys_platform == 'linux'",
        "tensorrt>=10.7; sys_platform == 'linux'",
    ],
    "federated": ["nvflare>=2.9", "psutil>=6.0"],
    "test": [
        "hypothesis>=6.112",
        "psutil>=6.0",
        "pytest>=8.3",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
    ],
}
EXTRAS["dev"] = [
    *EXTRAS["test"],
    "colcon-common-extensions>=0.3",
    "mypy>=1.13",
    "ruff>=0.8",
    "setuptools>=70.1,<80",
    "types-PyYAML>=6.0.12",
]

setup(
    name=NAME,
    version="0.1.0",
    description="Guidewire and catheter perception in X-ray, live on ROS 2",
    license="Apache-2.0",
    maintainer="The FedEFM authors",
    maintainer_email="fedefm@example.org",
    python_requires=">=3.10",
    packages=find_packages(include=["fedefm_core", "fedefm_core.*", NAME, f"{NAME}.*"]),
    package_data={
        "fedefm_core": [
            "models/*.onnx",
            "models/*.md",
            "models/*.safetensors",
            "federation/underlays/*.yaml",
            "py.typed",
        ]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        shared_files("launch"),
        shared_files("config"),
    ],
    install_requires=RUNTIME,
    extras_require=EXTRAS,
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "fedefm_core = fedefm_core.cli:main",
            "fluoroscopy_node = fedefm_ros.entry:fluoroscopy_node",
            "follower_robot_node = fedefm_ros.entry:follower_robot_node",
            "motion_guard_node = fedefm_ros.entry:motion_guard_node",
            "navigation_node = fedefm_ros.entry:navigation_node",
            "playback_node = fedefm_ros.entry:playback_node",
            "record_node = fedefm_ros.entry:record_node",
            "segmentation_node = fedefm_ros.entry:segmentation_node",
        ],
    },
)
