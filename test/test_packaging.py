# SPDX-License-Identifier: Apache-2.0
"""setup.py, package.xml and the pins tell one story."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import setuptools

requirements = pytest.importorskip("packaging.requirements", reason="needs packaging")

pytestmark = pytest.mark.packaging

REPOSITORY = Path(__file__).resolve().parents[1]
# Extras whose packages no machine of ours has run: they have bounds, but no pins.
NOT_PINNED = {"tensorrt"}


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what setup.py hands to setuptools."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path("setup.py")
    return given


def read_pins(name: str) -> dict[str, list[Any]]:
    """Return the requirements of a constraints file by package name, in lower case."""
    pins = defaultdict(list)
    for line in (REPOSITORY / name).read_text().splitlines():
        if line and not line.startswith("#"):
            pin = requirements.Requirement(line)
            pins[pin.name.lower()].append(pin)
    return pins


def needed(arguments: dict[str, Any], extras: set[str]) -> list[Any]:
    """Return the requirements of the package with some extras."""
    lines = [*arguments["install_requires"]]
    for extra in sorted(extras):
        lines += arguments["extras_require"][extra]
    return [requirements.Requirement(line) for line in lines]


def test_package_xml_agrees_with_setup_py(setup_arguments: dict[str, Any]) -> None:
    root = ET.parse(REPOSITORY / "package.xml").getroot()
    assert root.attrib == {"format": "3"}
    for tag in ("name", "version", "license"):
        assert root.findtext(tag) == setup_arguments[tag]
    assert root.findtext("export/build_type") == "ament_python"


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_requirement_has_one_pin_within_its_bounds(
    setup_arguments: dict[str, Any], python: str
) -> None:
    pins = read_pins("constraints.txt")
    for requirement in needed(
        setup_arguments, setup_arguments["extras_require"].keys() - NOT_PINNED
    ):
        valid = [
            pin
            for pin in pins[requirement.name.lower()]
            if pin.marker is None or pin.marker.evaluate({"python_version": python})
        ]
        assert len(valid) == 1, f"{requirement.name} has {len(valid)} pins for Python {python}"
        (version,) = valid[0].specifier
        assert version.operator == "=="
        assert requirement.specifier.contains(version.version), f"{requirement}, {valid[0]}"


def test_the_pins_for_a_real_ros_keep_the_bounds(setup_arguments: dict[str, Any]) -> None:
    bounds = {need.name.lower(): need.specifier for need in needed(setup_arguments, {"test"})}
    for name, pins in read_pins("constraints-ros.txt").items():
        for pin in pins:
            for version in pin.specifier:
                if version.operator == "==":
                    assert bounds[name].contains(version.version), str(pin)


def test_a_robot_and_the_demo_install_no_torch(setup_arguments: dict[str, Any]) -> None:
    names = {need.name.lower() for need in needed(setup_arguments, {"ros"})}
    assert names.isdisjoint({"torch", "monai", "geomloss", "nncf", "tensorboard"})
    assert not any("tensorrt" in name or "cuda" in name for name in names)


def test_nobody_asks_for_torchvision(setup_arguments: dict[str, Any]) -> None:
    extras = setup_arguments["extras_require"].keys()
    names = {need.name.lower() for need in needed(setup_arguments, set(extras))}
    assert "torchvision" not in names | read_pins("constraints.txt").keys()
