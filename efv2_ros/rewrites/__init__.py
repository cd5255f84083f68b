"""Rewrites of a network's graph: the same function, in a form that runs faster on the BPU."""

from efv2_ros.rewrites.blocks import blocks
from efv2_ros.rewrites.gelu import gelu_count
from efv2_ros.rewrites.registry import REWRITES, Rewrite, RewriteError, rewrite

__all__ = ["REWRITES", "Rewrite", "RewriteError", "blocks", "gelu_count", "rewrite"]
