"""The ROS side: the only room that imports rclpy or message types."""
