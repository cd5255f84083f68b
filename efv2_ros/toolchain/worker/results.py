"""What the compiler's own results say: nodes, fused GELUs, and the estimate with its layers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAYOUT_KINDS = {"Transpose", "Reshape", "Concat", "Split", "Slice", "Flatten", "Squeeze",
                "Unsqueeze", "Expand", "Tile", "Pad", "Identity", "DepthToSpace",
                "SpaceToDepth"}  # fmt: skip
"""Operators that compute nothing."""

LAYOUT_PREFIX = re.compile(r"(pre_|post_)?trans(pose)?[._]")
"""How names of layers begin that the compiler made only to move a node's values about."""

WIDTHS = ("FLOAT32", "INT32", "INT16", "INT8")
NAMES = {"FLOAT32": "float", "INT32": "int32", "INT16": "int16", "INT8": "int8"}


def node_reports(builder: Any, names: Callable[[str], str]) -> list[dict[str, Any]]:
    """Describe each node of the quantised model.

    Args:
        builder: The vendor's builder after its work.
        names: Gives a node's name in the model's file.
    """
    units = builder.model_hybrid_info
    cosines = builder.node_similarity_info
    reports = []
    for node in builder.quantized_model.graph.nodes:
        if units and node.name not in units:
            continue  # the compiler's own conversions at the borders
        cosine = cosines.get(node.name, {}).get("Cosine Similarity", "--")
        reports.append({
            "name": names(node.name),
            "op": node.op_type,
            "unit": units[node.name]["ON"] if units else "",
            "input_type": _widest([_type(each) for each in node.inputs if not each.is_param]),
            "output_type": _widest([_type(each) for each in node.outputs]),
            "cosine": None if cosine == "--" else float(cosine),
        })  # fmt: skip
    return reports


def gelus(builder: Any) -> tuple[int, int]:
    """Count the GELUs of the model, and those that became one operator."""
    erfs = sum(node.op_type == "Erf" for node in builder.original_model.graph.nodes)
    fused = sum(node.op_type == "HzGelu" for node in builder.optimized_model.graph.nodes)
    return max(erfs, fused), fused


def estimate(folder: Path, builder: Any, names: Callable[[str], str]) -> dict[str, Any]:
    """Add up the compiler's estimates of all subgraphs.

    Args:
        folder: Where the compiler wrote them.
        builder: The vendor's builder after its work.
        names: Gives a node's name in the model's file.
    """
    kinds = {node.name: node.op_type for node in builder.quantized_model.graph.nodes}
    files = sorted(folder.glob("*_subgraph_*.json"), key=_subgraph)
    summaries = [json.loads(file.read_text())["summary"] for file in files]
    if not summaries:
        raise ValueError("no part of the model runs on the BPU")
    microseconds = sum(each["latency (us)"] for each in summaries)
    return {
        "milliseconds": microseconds / 1000,
        "fps": summaries[0]["FPS"] if len(summaries) == 1 else 1e6 / microseconds,
        "ddr_bytes": sum(each["DDR bytes per frame"] for each in summaries),
        "layers": [layer for each in summaries for layer in layers(each, kinds, names)],
        "subgraphs": len(summaries),
    }


def layers(
    summary: dict[str, Any], kinds: dict[str, str], names: Callable[[str], str] = str
) -> list[dict[str, Any]]:
    """Read the table of layers.

    Args:
        summary: The compiler's estimate of one subgraph.
        kinds: Operators of the quantised model's nodes.
        names: Gives a node's name in the model's file.
    """
    head, *rows = summary["layer details"]
    column = {title: index for index, title in enumerate(head)}
    read = []
    for row in rows:
        name = row[column["layer"]]
        compute = _microseconds(row[column["computing cost (no DDR)"]])
        transfer = _microseconds(row[column["load/store cost"]])
        kind = _kind(name, kinds)
        read.append((name, kind, compute, transfer))
    moved = sum(transfer for *_, transfer in read) or 1.0
    return [
        {
            "name": names(name),
            "kind": kind,
            "microseconds": max(compute, transfer),
            "compute": compute,
            "transfer": transfer,
            "waits_for": waits_for(name, kind, compute, transfer),
            "ddr_bytes": round(summary["DDR bytes per frame"] * transfer / moved),
        }
        for name, kind, compute, transfer in read
    ]


def waits_for(name: str, kind: str, compute: float, transfer: float) -> str:
    """What a layer's time is spent on; see `protocol.Layer`."""
    if max(compute, transfer) == 0:
        return ""
    if kind in LAYOUT_KINDS or LAYOUT_PREFIX.match(name):
        return "layout"
    return "ddr" if transfer > compute else "compute"


def _kind(name: str, kinds: dict[str, str]) -> str:
    """Operator of the node that a layer belongs to; the compiler puts words before its name."""
    nodes = (node for node in kinds if name.endswith(node))
    return kinds.get(max(nodes, key=len, default=""), "")


def _subgraph(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])


def _microseconds(text: Any) -> float:
    """Read a time such as `12 us (2.0% of model)`; `0` and an empty cell are none."""
    found = re.match(r"\s*([\d,.]+)\s*(us|ms|s)?", str(text))
    if not found:
        return 0.0
    return float(found[1].replace(",", "")) * {"ms": 1e3, "s": 1e6}.get(found[2], 1.0)


def _type(variable: Any) -> str:
    return getattr(variable.dtype, "name", str(variable.dtype))


def _widest(types: list[str]) -> str:
    for each in WIDTHS:
        if each in types:
            return NAMES[each]
    return ""
