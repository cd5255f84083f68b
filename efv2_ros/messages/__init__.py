"""ROS messages without ROS: the CDR format, image messages, message definitions."""
