"""Helpers for the launch files. Requires ROS 2."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from efv2_ros.classify.option_table import Option, quoted
from efv2_ros.classify.options import NODE_NAME
from efv2_ros.node.fastdds import annotated_profile, image_profile
from efv2_ros.node.options import PARAMETERS, image_topics

_BOOLS = {
    **dict.fromkeys(("true", "yes", "on", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "0"), False),
}
"""What ROS's parameter files take for bool, and the digits that launch's conditions take."""

Start = Callable[[LaunchContext, set[str]], list[LaunchDescriptionEntity]]
"""Function of a launch file: takes the context and the names of the arguments that the user gave,
and returns the actions to execute."""


def description(arguments: Sequence[DeclareLaunchArgument], start: Start) -> LaunchDescription:
    """Describe a launch: declare the arguments, then execute the actions of `start`."""
    given: set[str] = set()
    return LaunchDescription(
        [
            # This comes before the declarations, which add the defaults: a parameter that the user
            # did not give must not override params_file.
            OpaqueFunction(function=lambda context: given.update(context.launch_configurations)),
            *arguments,
            OpaqueFunction(function=start, args=[given]),
        ]
    )


def node_arguments() -> list[DeclareLaunchArgument]:
    """Declare the arguments about the node: names, parameter file, log level."""
    return [
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of all nodes and topics"
        ),
        DeclareLaunchArgument(
            "node_name", default_value=NODE_NAME, description="Name of the classifier"
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value="",
            description="YAML file with parameters of the classifier, in the form of "
            "config/classify.yaml; arguments on the command line override it",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Lowest severity that the classifier logs",
        ),
    ]


def parameter_arguments(**defaults: Any) -> list[DeclareLaunchArgument]:
    """Declare an argument for each parameter of the classifier.

    Args:
        **defaults: Defaults that differ from the node's; give them to `classifier` too.
    """
    return [
        DeclareLaunchArgument(
            name,
            default_value=_text(defaults.get(name, option.default)),
            description=_described(option),
            choices=list(option.choices) or None,
        )
        for name, option in PARAMETERS.items()
    ]


def overrides(argument: Mapping[str, str], given: set[str]) -> dict[str, Any]:
    """Read and check the parameters that the user gave as arguments.

    Raises:
        RuntimeError: A value is of another type.
        ValueError: A value is not allowed.
    """
    values = {
        name: typed(name, argument[name], option.kind)
        for name, option in PARAMETERS.items()
        if name in given
    }
    for name, value in values.items():
        PARAMETERS[name].check(value)
    return values


def classifier(
    argument: Mapping[str, str],
    parameters: Mapping[str, Any],
    *,
    image_topic: str,
    defaults: Mapping[str, Any],
    **options: Any,
) -> Node:
    """Make the action that starts the classifier.

    Args:
        argument: The launch's arguments; those of `node_arguments` are used.
        parameters: Parameters that override params_file.
        image_topic: Topic of the images; see `image_topics` where there are several cameras.
        defaults: Parameters that params_file overrides.
        **options: Further arguments of `launch_ros.actions.Node`.

    Raises:
        RuntimeError: There is no params_file.
        ValueError: Several cameras would share a topic.
    """
    files = [str(Path(argument["params_file"]).expanduser())] if argument["params_file"] else []
    for file in files:
        if not Path(file).is_file():
            raise RuntimeError(f"there is no params_file {file}")
    arguments = ["--log-level", argument["log_level"]]
    # As arguments before params_file, these do not override it.
    for name, value in defaults.items():
        arguments += ["-p", f"{name}:={_text(value)}"]
    return Node(
        package="efv2_ros",
        executable="classifier",
        namespace=argument["namespace"],
        name=argument["node_name"],
        parameters=[*files, *as_parameters(parameters)],
        remappings=list(image_topics(image_topic, parameters.get("cameras", "")).items()),
        ros_arguments=arguments,
        additional_env=annotated_profile(os.environ),
        output="screen",
        **options,
    )


def image_variables() -> list[SetEnvironmentVariable]:
    """Make room for large images in the cameras' processes; see `image_profile`."""
    return [
        SetEnvironmentVariable(name, value) for name, value in image_profile(os.environ).items()
    ]


def typed(name: str, value: str, kind: type) -> Any:
    """Read the text of an argument as ROS reads parameters: as YAML.

    Raises:
        RuntimeError: It is of another type.
    """
    if kind is str:
        return value
    if kind is bool and value.lower() in _BOOLS:
        return _BOOLS[value.lower()]
    try:
        result = yaml.safe_load(value)
        if kind is float and type(result) is int:
            result = float(result)
    except Exception:  # of a value that does not fit its tag, PyYAML raises anything
        result = None
    if type(result) is not kind:
        raise RuntimeError(f"{name} is of type {kind.__name__}, {quoted(value)} is not")
    return result


def as_parameters(values: Mapping[str, Any]) -> list[dict[str, ParameterValue]]:
    """Make `Node(parameters=...)` keep the types: it would turn the text '1' into a number."""
    if not values:
        return []
    return [
        {name: ParameterValue(value, value_type=type(value)) for name, value in values.items()}
    ]


def _text(default: Any) -> str:
    """Write a default as a user would on the command line."""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _described(option: Option) -> str:
    """Describe a parameter with its range; launch itself adds the choices."""
    return f"{option.description} ({option.range})" if option.range else option.description
