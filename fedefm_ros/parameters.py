# SPDX-License-Identifier: Apache-2.0
"""Parameters of a node: declared from a table, refused by name, type and range.

A wrong value given at start does not end the process: `values` tells it, so that a lifecycle node
fails to configure with a sentence, and a `ros2 param set` mends it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from fedefm_core.errors import ConfigError

Value: TypeAlias = "bool | int | float | str"
TYPE_NAMES = {bool: "bool", int: "integer", float: "double", str: "string"}


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter. Its type is that of its default; minimum and maximum are inclusive.

    live: may change at any time; otherwise only when the node says so.
    """

    name: str
    default: Value
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    @property
    def expectation(self) -> str:
        """Type and range in words, such as 'a double from 0.0 to 60.0 s'."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = _kind(self.default)
        if self.minimum is not None:
            words += f" from {self.minimum} to {self.maximum}"
        return f"{words} {self.unit}".rstrip()


def refusal(spec: ParameterSpec, value: object) -> str | None:
    """Return why value does not fit spec, as a sentence; None when it fits.

    An integer fits a double: YAML writes 1.0 as 1.
    """
    wanted = type(spec.default)
    fits = type(value) is wanted or (wanted is float and type(value) is int)
    if fits and spec.choices:
        fits = value in spec.choices
    if fits and spec.minimum is not None and spec.maximum is not None:
        fits = math.isfinite(value) and spec.minimum <= value <= spec.maximum  # type: ignore
    if fits:
        return None
    return f"parameter '{spec.name}' must be {spec.expectation} (got {value!r}, {_kind(value)})"


def _kind(value: object) -> str:
    name = TYPE_NAMES.get(type(value), type(value).__name__)
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def describe(spec: ParameterSpec) -> ParameterDescriptor:
    """What `ros2 param describe` shows.

    Typing is dynamic so that a wrong type reaches `refusal`: rclpy's own words name no parameter.
    """
    text = f"{spec.description} Expects {spec.expectation}."
    descriptor = ParameterDescriptor(description=text, dynamic_typing=True)
    if spec.minimum is None or spec.maximum is None:
        return descriptor
    if isinstance(spec.default, float):
        span = FloatingPointRange(from_value=float(spec.minimum), to_value=float(spec.maximum))
        descriptor.floating_point_range = [span]
    else:
        span = IntegerRange(from_value=int(spec.minimum), to_value=int(spec.maximum), step=1)
        descriptor.integer_range = [span]
    return descriptor


def slips(given: Iterable[str], names: Sequence[str]) -> list[str]:
    """A sentence for each given name that nobody knows, but that looks like one of names.

    ROS takes values for parameters that there are not without a word, in files for several nodes
    with good reason: so one that looks like none of ours is passed over.
    """
    sentences = []
    for name in given:
        nearest = [] if name in names else difflib.get_close_matches(name, names, n=1, cutoff=0.7)
        if nearest:
            sentences.append(
                f"There is no parameter '{name}', its value is not used; did you mean "
                f"'{nearest[0]}'?"
            )
    return sentences


def only_live(spec: ParameterSpec) -> str:
    """Empty for a live parameter, else when it may change."""
    return "" if spec.live else "can change only at start"


class Parameters:
    """The declared parameters of a node."""

    def __init__(
        self,
        node: Node,
        specs: Sequence[ParameterSpec],
        *,
        fixed: Callable[[ParameterSpec], str] = only_live,
        on_set: Callable[[str, Value], None] = lambda name, value: None,
    ) -> None:
        """Declare specs on node.

        fixed: is asked when a parameter may change, if not now, as in "can change only while ...";
        empty: now. on_set: is told of each change that was accepted, after all values of a request
        were found right.
        """
        self._node = node
        self._specs = {spec.name: spec for spec in specs}
        self._fixed, self._on_set = fixed, on_set
        self._refusals: dict[str, str] = {}
        for spec in specs:
            self._declare(spec)
        given: Iterable[str] = getattr(node, "_parameter_overrides", ())  # no public way to ask
        strange = [name for name in given if not node.has_parameter(name)]
        for sentence in slips(strange, list(self._specs)):
            node.get_logger().warning(sentence)
        node.add_on_set_parameters_callback(self._check)

    def values(self) -> dict[str, Any]:
        """Return name -> value. Raises ConfigError when a value given at start was wrong."""
        if self._refusals:
            raise ConfigError("; ".join(self._refusals.values()))
        return {
            name: type(spec.default)(self._node.get_parameter(name).value)
            for name, spec in self._specs.items()
        }

    def _declare(self, spec: ParameterSpec) -> None:
        """Declare with the value given at start if that is right, else with the default."""
        free = ParameterDescriptor(dynamic_typing=True)
        given: Any = self._node.declare_parameter(spec.name, spec.default, free).value
        self._node.undeclare_parameter(spec.name)
        reason = refusal(spec, given)
        if reason is not None:
            self._refusals[spec.name] = reason
            given = spec.default
        value = type(spec.default)(given)
        self._node.declare_parameter(spec.name, value, describe(spec), ignore_override=True)

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        ours = [change for change in changes if change.name in self._specs]
        for change in ours:
            spec = self._specs[change.name]
            reason = refusal(spec, change.value)
            if reason is None and (when := self._fixed(spec)):
                reason = f"parameter '{spec.name}' {when}"
            if reason is not None:
                return SetParametersResult(successful=False, reason=reason)
        for change in ours:
            self._refusals.pop(change.name, None)
            self._on_set(change.name, type(self._specs[change.name].default)(change.value))
        return SetParametersResult(successful=True)
