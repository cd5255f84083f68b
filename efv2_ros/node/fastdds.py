"""Fast DDS's shared memory, made large enough for images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from efv2_ros.resources import share_path

VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""What names Fast DDS's profiles: in version 3, from Kilted on, and in version 2, which does not
know the first. Version 3 warns of the second."""

_VERSION_2 = ("humble", "iron", "jazzy")

_FILES = ("DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml")
"""What Fast DDS reads besides, from the working folder."""


def image_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable with which a process takes and publishes images by `config/fastdds_images.xml`.

    Args:
        environment: The variables there are; nothing is added to a profile of the user's own.
    """
    if any(environment.get(each) for each in VARIABLES) or any(
        Path(each).exists() for each in _FILES
    ):
        return {}
    name = VARIABLES[environment.get("ROS_DISTRO") in _VERSION_2]
    return {name: str(share_path("config", "fastdds_images.xml"))}
