"""The vision_msgs in use is the official one on the wire, whoever generated it."""

import pytest

rclpy = pytest.importorskip("rclpy")

from vision_msgs.msg import (  # noqa: E402
    Classification,
    LabelInfo,
    ObjectHypothesis,
    VisionClass,
    VisionInfo,
)

pytestmark = [pytest.mark.e2e, pytest.mark.distros, pytest.mark.numpy2]

# RIHS01 hashes of the official vision_msgs 4.1.1.
HASHES = {
    Classification: "f74db28d0eaef3afb78f48bf2161cd709a1383a0309d3454383b25be11345143",
    ObjectHypothesis: "51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    VisionInfo: "95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
    LabelInfo: "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    VisionClass: "1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a",
}


@pytest.fixture(scope="module")
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("interfaces", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("message", HASHES, ids=lambda message: message.__name__)
def test_type_hash_announced_to_subscribers(node, message):
    publisher = node.create_publisher(message, f"interfaces/{message.__name__}", 1)
    (announced,) = node.get_publishers_info_by_topic(publisher.topic_name)
    if not hasattr(announced, "topic_type_hash"):
        pytest.skip("ROS 2 Humble announces no type hashes")
    assert announced.topic_type == f"vision_msgs/msg/{message.__name__}"
    assert str(announced.topic_type_hash) == f"RIHS01_{HASHES[message]}"
