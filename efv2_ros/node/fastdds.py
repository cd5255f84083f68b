"""Fast DDS profiles that make its shared memory large enough for images.

Only publishers need the room, which a process takes when it joins ROS: a subscriber reads from the
publisher's shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from efv2_ros.resources import share_path

VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Environment variables that name a profile file: for Fast DDS 3, which Kilted and later have, and
for Fast DDS 2. Version 2 ignores the other's; version 3 warns of it."""

_FAST_DDS_2 = ("humble", "iron", "jazzy")

_FILES = ("DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml")
"""Profile files that Fast DDS reads from the working folder."""


def image_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Find the variable with which a process publishes images: a camera, or a player of bags.

    The process takes 64 MiB for it. Best-effort images of 640x480 bgr8 and more are lost without.

    Args:
        environment: The environment variables.

    Returns:
        What to add to them: nothing if the user has a profile.
    """
    return _profile("fastdds_images.xml", environment)


def annotated_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Find the variable with which a classifier publishes annotated images.

    The process takes 16 MiB for it, which is enough for one image of up to 16 MiB at a time. A
    classifier whose annotated images nobody outside its process wants does without.

    Args:
        environment: See `image_profile`.

    Returns:
        See `image_profile`.
    """
    return _profile("fastdds_annotated.xml", environment)


def _profile(file: str, environment: Mapping[str, str]) -> dict[str, str]:
    if any(environment.get(each) for each in VARIABLES) or any(
        Path(each).exists() for each in _FILES
    ):
        return {}
    name = VARIABLES[environment.get("ROS_DISTRO") in _FAST_DDS_2]
    return {name: str(share_path("config", file))}
