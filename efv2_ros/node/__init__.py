"""The nodes: the classifier and the image publisher. Requires ROS 2."""
