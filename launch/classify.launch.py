"""Start the classifier and, if wanted, a camera with it; `-s` lists the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node, PushRosNamespace, SetRemap

from efv2_ros import launching
from efv2_ros.node.image_publisher import ENCODINGS
from efv2_ros.resources import share_path


class UsbCamera(NamedTuple):
    """The camera node of a package, with the topic and transport it publishes."""

    package: str
    executable: str
    topic: str
    transport: str
    parameters: Mapping[str, Any]


USB_CAMERAS = (
    # For the board. It publishes the camera's own JPEG images.
    UsbCamera(
        "hobot_usb_cam", "hobot_usb_cam", "image", "compressed",
        {"pixel_format": "mjpeg", "zero_copy": False},
    ),
    UsbCamera("usb_cam", "usb_cam_node_exec", "image_raw", "raw", {}),
    UsbCamera("v4l2_camera", "v4l2_camera_node", "image_raw", "raw", {}),
)  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, and start what their values ask for."""
    return launching.description(
        [
            *source_arguments(),
            *launching.node_arguments(),
            *process_arguments(),
            *page_arguments(),
            *launching.parameter_arguments(),
        ],
        start,
    )


def source_arguments() -> list[DeclareLaunchArgument]:
    """Declare the arguments about the images and the camera."""
    return [
        DeclareLaunchArgument(
            "image_topic",
            default_value="image",
            description="Topic of the images. With cameras: what each has below its own name, or "
            "a name with {camera} in it",
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


def process_arguments() -> list[DeclareLaunchArgument]:
    """Declare the arguments about the classifier's process."""
    return [
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            description="true or false: start the classifier again when it ends",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            description="true or false: take the time from /clock, as when a bag is played",
        ),
    ]


def page_arguments() -> list[DeclareLaunchArgument]:
    """Declare the arguments about the page in the browser."""
    return [
        DeclareLaunchArgument(
            "web",
            default_value="false",
            description="true or false: show the classifier in a browser; see efv2 web --help",
        ),
        DeclareLaunchArgument("web_port", default_value="8000", description="Port of the page"),
    ]


def start(context: LaunchContext, given: set[str]) -> list[LaunchDescriptionEntity]:
    """Start the classifier, its camera and its page."""
    argument = context.launch_configurations
    parameters = launching.overrides(argument, given)
    for name in given & {"use_sim_time"}:
        parameters[name] = launching.typed(name, argument[name], bool)
    camera, transport = start_camera(argument)
    if camera and parameters.get("cameras"):
        raise RuntimeError("camera starts one camera: start those of cameras by themselves")
    if transport and parameters.setdefault("transport", transport) != transport:
        raise RuntimeError(
            f"camera:={argument['camera']} publishes {transport} images here: leave transport out "
            "(encoding:=jpeg makes images and video compressed)"
        )
    classifier = launching.classifier(
        argument,
        parameters,
        image_topic=argument["image_topic"],
        # All these cameras publish reliably. With best effort, Fast DDS loses large images.
        defaults={"qos_reliability": "reliable"} if camera else {},
        respawn=launching.typed("respawn", argument["respawn"], bool),
        respawn_delay=2.0,
    )
    # The page first: it publishes no images and needs no room for them.
    return [*start_page(argument), *launching.image_variables(), classifier, *camera]


def start_page(argument: Mapping[str, str]) -> list[LaunchDescriptionEntity]:
    """Start the page in the browser, if it is wanted."""
    if not launching.typed("web", argument["web"], bool):
        return []
    port = launching.typed("web_port", argument["web_port"], int)
    name = "/".join(["", *argument["namespace"].strip("/").split("/"), argument["node_name"]])
    arguments = ["--classifier", name.replace("//", "/"), "--port", str(port)]
    return [Node(package="efv2_ros", executable="web", arguments=arguments, output="screen")]


def start_camera(argument: Mapping[str, str]) -> tuple[list[LaunchDescriptionEntity], str]:
    """Start the camera.

    Returns:
        Its actions and the transport of its images; nothing and "" without a camera.
    """
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
        "rate": launching.typed("rate", argument["rate"], float),
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
    """Start a camera's node, which publishes to `image_topic`."""
    return Node(
        package=package,
        executable=executable,
        namespace=argument["namespace"],
        parameters=launching.as_parameters(parameters),
        remappings=[(topic, argument["image_topic"])],
        output="screen",
    )


def mipi_camera(argument: Mapping[str, str]) -> GroupAction:
    """Start the board's camera with D-Robotics' own launch file, publishing nv12 over DDS."""
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
                    # By default stamps come from the sensor's clock, which is not ROS time.
                    "mipi_frame_ts_type": "realtime",
                }.items(),
            ),
        ]
    )


def installed_usb_camera() -> UsbCamera:
    """Find the first installed camera package."""
    installed = get_packages_with_prefixes()
    for camera in USB_CAMERAS:
        if camera.package in installed:
            return camera
    raise RuntimeError(
        f"camera:=usb needs one of {', '.join(camera.package for camera in USB_CAMERAS)}: "
        "sudo apt install ros-$ROS_DISTRO-usb-cam (on the board: tros-humble-hobot-usb-cam)"
    )
