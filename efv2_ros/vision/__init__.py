"""Pixels and scores: frames, NV12, top-k, labels. NumPy and OpenCV only."""
