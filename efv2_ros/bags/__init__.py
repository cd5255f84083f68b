"""ROS 2 bags without ROS: reading, salvaging damaged files, writing."""
