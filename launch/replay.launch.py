"""Play a bag to the classifier and record its results; `-s` lists the arguments."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from ament_index_python.packages import get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, ExecuteProcess, Shutdown
from launch.events.process import ProcessExited
from launch_ros.substitutions import ExecutableInPackage

from efv2_ros import launching
from efv2_ros.bags.bag import Bag

DEFAULTS = {
    "queue_policy": "all",
    # The player learns of dropped images from these reports alone, and waits for them.
    "diagnostics_period": 0.2,
}
"""Parameters whose default differs from the node's."""

_START_TIMEOUT_S = 300
"""For the classifier to become active: it may have to download a model."""


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, and start what their values ask for."""
    return launching.description(
        [
            *bag_arguments(),
            *launching.node_arguments(),
            *launching.parameter_arguments(**DEFAULTS),
        ],
        start,
    )


def bag_arguments() -> list[DeclareLaunchArgument]:
    """Declare the arguments about the bag and how it is played."""
    return [
        DeclareLaunchArgument("bag", description="The bag: a rosbag2 folder, or a file of one"),
        DeclareLaunchArgument(
            "topic",
            default_value="",
            description="Topic of the images; not needed if the bag has only one",
        ),
        DeclareLaunchArgument(
            "out",
            default_value=time.strftime("efv2_results_%Y_%m_%d-%H_%M_%S"),
            description="Where to record the results: a new folder for a bag, or FILE.jsonl; "
            "empty: only the summary is shown",
        ),
        DeclareLaunchArgument(
            "rate",
            default_value="",
            description="Playback speed; 2 is twice real time; empty: 1 for ros2, and as fast as "
            "the results come for efv2",
        ),
        DeclareLaunchArgument(
            "player",
            default_value="auto",
            choices=["auto", "ros2", "efv2"],
            description="ros2: `ros2 bag play`; efv2: `efv2 play`, which waits for the result of "
            "each image; auto: ros2 where it is installed",
        ),
    ]


def start(context: LaunchContext, given: set[str]) -> list[LaunchDescriptionEntity]:
    """Start the classifier and the player, with all arguments known."""
    argument = context.launch_configurations
    path = Path(argument["bag"]).expanduser()
    with Bag(path) as bag:
        images = bag.image_topic(argument["topic"])
    parameters = launching.overrides(argument, given)
    if parameters.get("cameras"):
        raise RuntimeError("the images of a bag are those of one camera: leave cameras out")
    if parameters.setdefault("transport", images.transport) != images.transport:
        raise RuntimeError(
            f"{images.name} carries {images.type_name}: leave transport out, or set it to "
            f"{images.transport}"
        )
    classifier = launching.classifier(
        argument,
        {**parameters, "use_sim_time": True},
        image_topic=images.name,
        defaults=DEFAULTS,
        on_exit=classifier_ended,
    )
    player = ExecuteProcess(
        cmd=[ExecutableInPackage("efv2", "efv2_ros"), *play_arguments(argument, path)],
        output="screen",
        on_exit=player_ended,
    )
    return [*launching.image_variables(), classifier, player]


def play_arguments(argument: Mapping[str, str], bag: Path) -> list[str]:
    """Build the arguments of `efv2`."""
    player, has_ros2 = argument["player"], "ros2bag" in get_packages_with_prefixes()
    if player == "auto":
        player = "ros2" if has_ros2 else "efv2"
    if player == "ros2" and not has_ros2:
        raise RuntimeError(
            "player:=ros2 needs `ros2 bag`: sudo apt install ros-$ROS_DISTRO-ros2bag "
            "ros-$ROS_DISTRO-rosbag2-storage-mcap"
        )
    name = "/".join(["", *filter(None, argument["namespace"].split("/")), argument["node_name"]])
    line = ["play", str(bag), "--player", player, "--classifier", name, "--clock", "--reliable"]
    line += ["--start-timeout", str(_START_TIMEOUT_S)]
    if player == "efv2":
        line += ["--wait-for-results"]
    if argument["rate"]:
        rate = launching.typed("rate", argument["rate"], float)
        if not 0 < rate < math.inf:
            raise RuntimeError(f"rate is positive and finite, {rate:g} is not")
        line += ["--rate", str(rate)]
    if argument["out"]:
        out = Path(argument["out"]).expanduser()
        if out.exists():
            raise RuntimeError(f"cannot write {out}: it exists already")
        line += ["--results", str(out)]
    return line


def player_ended(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """End the launch; an exception makes it fail."""
    if context.is_shutdown:
        return []
    if event.returncode:
        raise RuntimeError(f"the replay failed with exit status {event.returncode}")
    return [Shutdown(reason="the bag was played, and the results are in")]


def classifier_ended(event: ProcessExited, context: LaunchContext) -> None:
    """Fail if the classifier ends before the player."""
    if not context.is_shutdown:
        raise RuntimeError(f"the classifier ended with exit status {event.returncode}")
