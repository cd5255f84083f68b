"""EfficientFormerV2 image classification for ROS 2 on the RDK X5."""

__version__ = "0.1.0"
