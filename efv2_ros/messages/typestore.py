"""Definitions of all message types that bags here hold, from rosbags and `interfaces/`."""

from __future__ import annotations

import functools
from typing import Any

from efv2_ros.messages.errors import MessageError
from efv2_ros.resources import share_path

_PACKAGES = ("vision_msgs", "hbm_img_msgs", "foxglove_msgs")
"""Packages whose definitions are in `interfaces/`; rosbags has those of ROS itself."""


def require_rosbags() -> None:
    """Check that rosbags is installed.

    Raises:
        MessageError: It is not.
    """
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        raise MessageError(
            f"bags need the package rosbags ({error}): pip install rosbags"
        ) from error


@functools.cache
def typestore() -> Any:
    """Load all message types, as a `rosbags.typesys.store.Typestore`.

    The types are Humble's, so that the board can play the bags. Their fields, and so their hashes,
    are the same on later distributions.

    Raises:
        MessageError: rosbags is missing.
    """
    require_rosbags()
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    definitions: dict[str, Any] = {}
    for package in _PACKAGES:
        for file in sorted(share_path("interfaces", package, "msg").glob("*.msg")):
            definitions |= get_types_from_msg(file.read_text(), f"{package}/msg/{file.stem}")
    store.register(definitions)
    return store
