"""Accuracy of one model, or of two to compare, over a folder of images of known classes."""
