"""ROS parameters of the classifier node: declaration from the option table, and reading."""

from __future__ import annotations

from collections.abc import Mapping

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from efv2_ros.classify.option_table import Change, Option, Value
from efv2_ros.node.options import PARAMETERS, Settings, options_with


def declare(node: Node, options: Mapping[str, Option]) -> None:
    """Declare parameters with their defaults and descriptors, unless the node has them."""
    for name, option in options.items():
        if not node.has_parameter(name):
            node.declare_parameter(name, option.default, descriptor_of(option))


def descriptor_of(option: Option) -> ParameterDescriptor:
    """Describe a parameter for `ros2 param describe`; rclpy enforces the ranges."""
    descriptor = ParameterDescriptor(
        description=option.description,
        additional_constraints=f"changes {option.change.value}",
        read_only=option.change is Change.START,
        dynamic_typing=option.is_list,
    )
    if option.choices:
        descriptor.additional_constraints += f"; one of: {', '.join(option.choices)}"
    if option.limits is not None:
        low, high = option.limits
        if option.kind is int:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor


def read(node: Node, changes: Mapping[str, Value] | None = None) -> Settings:
    """Read all parameters, with `changes` in place of the values that the node has.

    Raises:
        ValueError: A value is not allowed; the message names the parameter.
    """
    wanted = dict(changes or {})
    if "cameras" not in wanted:
        wanted["cameras"] = PARAMETERS["cameras"].plain(node.get_parameter("cameras").value)
    options = options_with(PARAMETERS["cameras"].attribute(wanted["cameras"]))
    values = {
        name: node.get_parameter(name).value
        for name in options
        if name not in wanted and node.has_parameter(name)
    }
    return Settings.of(values | wanted)
