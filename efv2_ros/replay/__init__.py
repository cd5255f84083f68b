"""Bags in, results out: offline replay, golden runs, and what reads and writes both."""
