"""The blocks of a network: which nodes belong to which part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

_STAGE = re.compile(r"stages\.(\d+)$")
_BLOCK = re.compile(r"blocks\.(\d+)$")
_NUMBERED = re.compile(r"\w+(\.\d+)+$")


def blocks(model: ModelProto) -> Mapping[str, tuple[str, ...]]:
    """Part a model's nodes into blocks, by the modules in their names.

    EfficientFormerV2 has the blocks `stem`, `stages.0.blocks.0`, `stages.2.downsample` and so on,
    and `head`, which is all after the last stage. Another network has the blocks that torch's
    exporter named, such as `layer1.0`. Constants and nodes without a name belong to no block.

    Returns:
        The names of nodes of each block, in the graph's order.
    """
    parts: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.name and node.op_type != "Constant":
            block = _block_of(node.name.split("/")[:-1])
            parts.setdefault(block, []).append(node.name)
    return {block: tuple(names) for block, names in parts.items()}


def _block_of(modules: Sequence[str]) -> str:
    """Name the block of a node by the modules around it, the outermost first."""
    stage = ""
    for module in modules:
        if module == "stem":
            return "stem"
        if _STAGE.match(module):
            stage = module
        elif stage and (_BLOCK.match(module) or module == "downsample"):
            return f"{stage}.{module}"
    if stage:
        return stage
    numbered = next((module for module in modules if _NUMBERED.match(module)), "")
    return numbered or "head"
