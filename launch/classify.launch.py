"""Start the classifier and, if wanted, a camera with it; `-s` lists the arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node, PushRosNamespace, SetRemap
from launch_ros.parameter_descriptions import ParameterValue

from efv2_ros.node.image_publisher import ENCODINGS
from efv2_ros.node.middleware import image_profile
from efv2_ros.node.parameters import PARAMETERS, Constraint, Settings
from efv2_ros.resources import share_path

DEFAULTS = {each.name: each.default for each in fields(Settings)}


class UsbCamera(NamedTuple):
    """A package's camera node, and what it publishes where."""

    package: str
    executable: str
    topic: str
    transport: str
    parameters: Mapping[str, Any]


USB_CAMERAS = (
    # On the board. It hands on the camera's own JPEG files.
    UsbCamera(
        "hobot_usb_cam", "hobot_usb_cam", "image", "compressed",
        {"pixel_format": "mjpeg", "zero_copy": False},
    ),
    UsbCamera("usb_cam", "usb_cam_node_exec", "image_raw", "raw", {}),
    UsbCamera("v4l2_camera", "v4l2_camera_node", "image_raw", "raw", {}),
)  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    """The arguments, then what follows from their values."""
    given: set[str] = set()
    return LaunchDescription(
        [
            # Before the defaults fill up the configurations: a parameter that was not given must
            # not override params_file.
            OpaqueFunction(function=lambda context: given.update(context.launch_configurations)),
            *source_arguments(),
            *node_arguments(),
            *parameter_arguments(),
            OpaqueFunction(function=start, args=[given]),
        ]
    )


def source_arguments() -> list[DeclareLaunchArgument]:
    """Where the images come from."""
    return [
        DeclareLaunchArgument(
            "image_topic", default_value="image", description="Topic of the images"
        ),
        DeclareLaunchArgument(
            "camera",
            default_value="none",
            choices=["none", "usb", "mipi", "images", "video"],
            description="Camera to start, publishing image_topic. usb: hobot_usb_cam, usb_cam or "
            "v4l2_camera, the first installed; mipi: mipi_cam of D-Robotics' TROS, whose own "
            "launch arguments may be given too; images and video: the files in path",
        ),
        DeclareLaunchArgument(
            "path",
            default_value="",
            description="For images: folder of photos, the package's own when empty; for video: "
            "the file",
        ),
        DeclareLaunchArgument(
            "rate",
            default_value="0.0",
            description="For images and video: images a second; 0: the video's own, 10 for photos",
        ),
        DeclareLaunchArgument(
            "encoding",
            default_value="bgr8",
            choices=list(ENCODINGS),
            description="For images and video: encoding of the images; jpeg: CompressedImage",
        ),
        DeclareLaunchArgument(
            "video_device", default_value="/dev/video0", description="For usb: the camera's device"
        ),
    ]


def node_arguments() -> list[DeclareLaunchArgument]:
    """How the classifier's process is run."""
    return [
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of all nodes and topics"
        ),
        DeclareLaunchArgument(
            "node_name", default_value="efv2_classifier", description="Name of the classifier"
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value="",
            description="YAML file of the classifier's parameters, as config/classify.yaml; "
            "what is given here on the command line comes first",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=["true", "false"],
            description="Start the classifier again when it ends",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Least severity the classifier logs",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=["true", "false"],
            description="Take the time from /clock, as when a bag is played",
        ),
    ]


def parameter_arguments() -> list[DeclareLaunchArgument]:
    """The classifier's parameters."""
    return [
        DeclareLaunchArgument(
            name,
            default_value=text(DEFAULTS[name]),
            description=described(constraint),
            choices=list(constraint.choices) or None,
        )
        for name, constraint in PARAMETERS.items()
    ]


def start(context: LaunchContext, given: set[str]) -> list[LaunchDescriptionEntity]:
    """The classifier and its camera, with all arguments known."""
    argument = context.launch_configurations
    files = [str(Path(argument["params_file"]).expanduser())] if argument["params_file"] else []
    for file in files:
        if not Path(file).is_file():
            raise RuntimeError(f"there is no params_file {file}")
    overrides = {
        name: typed(name, argument[name], type(default))
        for name, default in DEFAULTS.items()
        if name in given
    }
    for name, value in overrides.items():
        PARAMETERS[name].check(name, value)
    if "use_sim_time" in given:
        overrides["use_sim_time"] = argument["use_sim_time"] == "true"

    camera, transport = start_camera(argument)
    if transport and overrides.setdefault("transport", transport) != transport:
        raise RuntimeError(
            f"camera:={argument['camera']} publishes {transport} images here: leave transport out "
            "(encoding:=jpeg makes images and video compressed)"
        )
    # All these cameras publish reliably, without which stock Fast DDS loses large images. This is
    # no override: it comes before params_file and holds for any node.
    defaults = ["-p", "qos_reliability:=reliable"] if camera else []
    classifier = Node(
        package="efv2_ros",
        executable="classifier",
        namespace=argument["namespace"],
        name=argument["node_name"],
        parameters=[*files, *as_parameters(overrides)],
        remappings=[("image", argument["image_topic"])],
        ros_arguments=["--log-level", argument["log_level"], *defaults],
        respawn=argument["respawn"] == "true",
        respawn_delay=2.0,
        output="screen",
    )
    profile = image_profile(os.environ)
    variables = [SetEnvironmentVariable(name, value) for name, value in profile.items()]
    return [*variables, classifier, *camera]


def start_camera(argument: Mapping[str, str]) -> tuple[list[LaunchDescriptionEntity], str]:
    """What publishes the images, and their transport; nothing and "" without a camera."""
    camera = argument["camera"]
    if camera == "none":
        return [], ""
    if camera == "usb":
        usb = installed_usb_camera()
        parameters = {"video_device": argument["video_device"], **usb.parameters}
        return [camera_node(argument, usb.package, usb.executable, usb.topic, parameters)], (
            usb.transport
        )
    if camera == "mipi":
        return [mipi_camera(argument)], "raw"
    path = argument["path"]
    if not path and camera == "video":
        raise RuntimeError("camera:=video needs path:=..., the file to publish")
    parameters = {
        "path": path or str(share_path("photos")),
        "rate": typed("rate", argument["rate"], float),
        "encoding": argument["encoding"],
    }
    node = camera_node(argument, "efv2_ros", "image_publisher", "image", parameters)
    return [node], "compressed" if argument["encoding"] == "jpeg" else "raw"


def camera_node(
    argument: Mapping[str, str],
    package: str,
    executable: str,
    topic: str,
    parameters: Mapping[str, Any],
) -> Node:
    """A camera's node, publishing `image_topic`."""
    return Node(
        package=package,
        executable=executable,
        namespace=argument["namespace"],
        parameters=as_parameters(parameters),
        remappings=[(topic, argument["image_topic"])],
        output="screen",
    )


def mipi_camera(argument: Mapping[str, str]) -> GroupAction:
    """D-Robotics' own launch file, which knows the board's cameras, told to publish to DDS."""
    if "mipi_cam" not in get_packages_with_prefixes():
        raise RuntimeError(
            "camera:=mipi needs the package mipi_cam of D-Robotics' TROS: "
            "sudo apt install tros-humble-mipi-cam && source /opt/tros/humble/setup.bash"
        )
    launch_file = Path(get_package_share_directory("mipi_cam"), "launch", "mipi_cam.launch.py")
    return GroupAction(
        [
            *([PushRosNamespace(argument["namespace"])] if argument["namespace"] else []),
            SetRemap("image_raw", argument["image_topic"]),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(launch_file)),
                launch_arguments={
                    "mipi_io_method": "ros",
                    "mipi_out_format": "nv12",
                    # The sensor's clock counts from another moment than ROS time.
                    "mipi_frame_ts_type": "realtime",
                }.items(),
            ),
        ]
    )


def installed_usb_camera() -> UsbCamera:
    """The first of the packages that is here."""
    installed = get_packages_with_prefixes()
    for camera in USB_CAMERAS:
        if camera.package in installed:
            return camera
    raise RuntimeError(
        f"camera:=usb needs one of {', '.join(camera.package for camera in USB_CAMERAS)}: "
        "sudo apt install ros-$ROS_DISTRO-usb-cam (on the board: tros-humble-hobot-usb-cam)"
    )


def text(default: Any) -> str:
    """A default as it is typed on the command line."""
    return str(default).lower() if isinstance(default, bool) else str(default)


def described(constraint: Constraint) -> str:
    """A parameter's description with its range; launch itself adds the choices."""
    if constraint.low is None or constraint.high is None:
        return constraint.description
    return f"{constraint.description} ({constraint.low:g} to {constraint.high:g})"


def typed(name: str, value: str, kind: type) -> Any:
    """What the text of an argument stands for."""
    if kind is str:
        return value
    result = yaml.safe_load(value)
    if kind is float and type(result) is int:
        result = float(result)
    if type(result) is not kind:
        raise RuntimeError(f"{name} is of type {kind.__name__}, '{value}' is not")
    return result


def as_parameters(values: Mapping[str, Any]) -> list[dict[str, ParameterValue]]:
    """For `Node(parameters=...)`, typed: launch would read text as YAML and make '1' a number."""
    if not values:
        return []
    return [
        {name: ParameterValue(value, value_type=type(value)) for name, value in values.items()}
    ]
