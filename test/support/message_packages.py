"""What tests need of message packages that not every installation has."""

import pytest


def need_annotations():
    """Skip the test where foxglove_msgs is missing, or has other fields than bags here name."""
    pytest.importorskip("rosbags")
    pytest.importorskip("foxglove_msgs.msg")
    from efv2_ros.play.definitions import has_our_fields

    if not has_our_fields("foxglove_msgs/msg/ImageAnnotations"):
        pytest.skip("the installed foxglove_msgs is another version")
