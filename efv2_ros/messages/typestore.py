"""The types of the messages that bags hold, known without ROS."""

from __future__ import annotations

import functools
from typing import Any

from efv2_ros.messages.errors import MessageError
from efv2_ros.resources import share_path

_PACKAGES = ("vision_msgs", "hbm_img_msgs")
"""Those of `interfaces/`; rosbags itself knows ROS's own."""


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
    """All types that are written; a `rosbags.typesys.store.Typestore`.

    Humble's, so that the bags can be played on the board. A type's fields, and so its hash, are
    the same on later distributions.

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
