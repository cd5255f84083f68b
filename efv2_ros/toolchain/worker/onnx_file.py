"""Gives an ONNX file of the vendor one form, however its tables were ordered and numbered."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx

_NUMBERED = re.compile(r"\bvariable_\d+")


class Names:
    """New names for what the vendor numbered in no particular order."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._new: dict[str, str] = {}
        for text in texts:
            for old in _NUMBERED.findall(text):
                self._new.setdefault(old, f"variable_{len(self._new)}")

    def __call__(self, text: str) -> str:
        """Replace all old names in a text."""
        return _NUMBERED.sub(lambda old: self._new.get(old[0], old[0]), text)


def unify(path: Path) -> Names:
    """Number the tensors of a model in the order of its nodes, and sort its tables by name.

    Names and the order of the tables mean nothing. With both unified, the same request gives the
    same bytes.

    Returns:
        The new names.
    """
    model = onnx.load(str(path))
    graph: Any = model.graph
    names = Names(_texts(graph))
    for node in graph.node:
        node.name = names(node.name)
        for tensors in (node.input, node.output):
            tensors[:] = [names(each) for each in tensors]
    for table in (graph.initializer, graph.value_info):
        for each in table:
            each.name = names(each.name)
        entries = sorted(table, key=lambda each: each.name)
        del table[:]
        table.extend(entries)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(model.SerializeToString(deterministic=True))
    beside.replace(path)
    return names


def _texts(graph: Any) -> Iterator[str]:
    """All names, in the order of the nodes."""
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
