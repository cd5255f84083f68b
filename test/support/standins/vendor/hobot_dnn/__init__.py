"""A stand-in for D-Robotics' package."""
