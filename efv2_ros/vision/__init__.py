"""Pixels: frames, NV12, resizing, JPEG and PNG. NumPy and OpenCV only."""
