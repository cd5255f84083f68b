"""D-Robotics' quantiser, compiler and simulator, in a Python environment of their own."""
