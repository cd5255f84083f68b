"""ROS's wire format without ROS: CDR, image messages, message types."""
