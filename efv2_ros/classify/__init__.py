"""From a frame to a prediction, without ROS: options, model, classifier, pipeline."""
