"""The smallest Python node with the classifier's main topics: what ROS alone costs.

It answers every image with a result without classes.
"""

from __future__ import annotations

import sys

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification, LabelInfo, VisionInfo

from efv2_ros.classify.options import NODE_NAME


def main() -> None:
    """Run the node until SIGTERM."""
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node: Node = rclpy.create_node(NODE_NAME)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    kept = [
        node.create_publisher(VisionInfo, "~/vision_info", latched),
        node.create_publisher(LabelInfo, "~/label_info", latched),
    ]
    results = node.create_publisher(Classification, "~/classification", 10)
    node.create_subscription(
        Image, "image", lambda image: results.publish(Classification(header=image.header)), 1
    )
    for publisher, message in zip(kept, (VisionInfo(), LabelInfo()), strict=True):
        publisher.publish(message)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
