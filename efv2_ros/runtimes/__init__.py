"""Runtimes, which run a model file: from an NV12 image to logits, on the BPU or the CPU."""
