"""What the launch files share. For them alone: only where ROS is, there is `launch` to import."""

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
from efv2_ros.node.options import PARAMETERS

_BOOLS = {
    **dict.fromkeys(("true", "yes", "on", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "0"), False),
}
"""What ROS's parameter files take for bool, and the digits that launch's conditions take."""

Start = Callable[[LaunchContext, set[str]], list[LaunchDescriptionEntity]]
"""Given the context and the names of the arguments that were given, returns what is started."""


def description(arguments: Sequence[DeclareLaunchArgument], start: Start) -> LaunchDescription:
    """The arguments, then what follows from their values."""
    given: set[str] = set()
    return LaunchDescription(
        [
            # Before the defaults fill up the configurations: a parameter that was not given must
            # not override params_file.
            OpaqueFunction(function=lambda context: given.update(context.launch_configurations)),
            *arguments,
            OpaqueFunction(function=start, args=[given]),
        ]
    )


def node_arguments() -> list[DeclareLaunchArgument]:
    """Which classifier is started, and what it says."""
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
            description="YAML file of the classifier's parameters, as config/classify.yaml; "
            "what is given here on the command line comes first",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Least severity the classifier logs",
        ),
    ]


def parameter_arguments(**defaults: Any) -> list[DeclareLaunchArgument]:
    """The classifier's parameters.

    Args:
        **defaults: Of parameters that have another default here; `classifier` wants them too.
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
    """The parameters that were given.

    Raises:
        RuntimeError: One is of another type.
        ValueError: One is outside its constraint.
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
    """The classifier.

    Args:
        argument: Of the launch; those of `node_arguments` are used.
        parameters: What comes before params_file.
        image_topic: Where the images are.
        defaults: Parameters that come after params_file.
        **options: Of `launch_ros.actions.Node`.

    Raises:
        RuntimeError: There is no params_file.
    """
    files = [str(Path(argument["params_file"]).expanduser())] if argument["params_file"] else []
    for file in files:
        if not Path(file).is_file():
            raise RuntimeError(f"there is no params_file {file}")
    arguments = ["--log-level", argument["log_level"]]
    # These are no overrides: they stand before params_file, and hold for any node.
    for name, value in defaults.items():
        arguments += ["-p", f"{name}:={_text(value)}"]
    return Node(
        package="efv2_ros",
        executable="classifier",
        namespace=argument["namespace"],
        name=argument["node_name"],
        parameters=[*files, *as_parameters(parameters)],
        remappings=[("image", image_topic)],
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
    """Read the text of an argument, as YAML, as ROS reads parameters.

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
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        result = None
    if type(result) is not kind:
        raise RuntimeError(f"{name} is of type {kind.__name__}, {quoted(value)} is not")
    return result


def as_parameters(values: Mapping[str, Any]) -> list[dict[str, ParameterValue]]:
    """For `Node(parameters=...)`, typed: launch would read text as YAML and make '1' a number."""
    if not values:
        return []
    return [
        {name: ParameterValue(value, value_type=type(value)) for name, value in values.items()}
    ]


def _text(default: Any) -> str:
    """A default as it is typed on the command line."""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _described(option: Option) -> str:
    """A parameter's description with its range; launch itself adds the choices."""
    return f"{option.description} ({option.range})" if option.range else option.description
