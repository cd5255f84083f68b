"""`efv2 bench`: what the package does, each figure beside a baseline measured in the same run."""
