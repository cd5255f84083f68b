"""Encode a small ONNX model without the `onnx` package, so that running one needs only a runtime.

An ONNX file is one protobuf message. The field numbers and types are those of onnx.proto
(github.com/onnx/onnx, IR version 7), the encoding is protobuf's
(https://protobuf.dev/programming-guides/encoding): each field is a key, `number << 3 | wire type`,
and a value, either a varint or a length and as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_VARINT, _BYTES = 0, 2  # wire types

_DATA_TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int64): 7}
_ATTRIBUTE_INT, _ATTRIBUTE_STRING, _ATTRIBUTE_INTS = 2, 3, 7  # AttributeProto.AttributeType

Attribute = int | str | Sequence[int]


def data_type(dtype: DTypeLike) -> int:
    """Look up the number of a data type (TensorProto.DataType).

    Raises:
        KeyError: The encoder does not know this type.
    """
    return _DATA_TYPES[np.dtype(dtype).newbyteorder("=")]


def model(graph: bytes, *, opset: int, ir_version: int) -> bytes:
    """Encode a ModelProto whose nodes are of ONNX's own operator set `opset`."""
    opset_id = _bytes(1, b"") + _integer(2, opset)  # domain, version
    return _integer(1, ir_version) + _bytes(7, graph) + _bytes(8, opset_id)


def graph(
    name: str,
    nodes: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    constants: Mapping[str, NDArray[Any]],
) -> bytes:
    """Encode a GraphProto.

    Args:
        name: Any name.
        nodes: From `node`, each after those whose outputs it takes.
        inputs: From `value_info`.
        outputs: From `value_info`.
        constants: Initializers by name: float32, uint8 or int64.
    """
    return b"".join(
        [
            *(_bytes(1, each) for each in nodes),
            _bytes(2, name.encode()),
            *(_bytes(5, _tensor(name, value)) for name, value in constants.items()),
            *(_bytes(11, each) for each in inputs),
            *(_bytes(12, each) for each in outputs),
        ]
    )


def node(
    operator: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: Attribute
) -> bytes:
    """Encode a NodeProto."""
    return b"".join(
        [
            *(_bytes(1, each.encode()) for each in inputs),
            *(_bytes(2, each.encode()) for each in outputs),
            _bytes(4, operator.encode()),
            *(_bytes(5, _attribute(*each)) for each in sorted(attributes.items())),
        ]
    )


def value_info(name: str, dtype: DTypeLike, shape: Iterable[int]) -> bytes:
    """Encode a ValueInfoProto: name, type and shape of an input or output."""
    dimensions = b"".join(_bytes(1, _integer(1, size)) for size in shape)
    tensor_type = _integer(1, data_type(dtype)) + _bytes(2, dimensions)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor_type))


def _tensor(name: str, value: NDArray[Any]) -> bytes:
    """Encode a TensorProto; `raw_data` is little-endian on every machine."""
    raw = value.astype(value.dtype.newbyteorder("<")).tobytes()
    dimensions = b"".join(_integer(1, size) for size in value.shape)
    kind = _integer(2, data_type(value.dtype))
    return dimensions + kind + _bytes(8, name.encode()) + _bytes(9, raw)


def _attribute(name: str, value: Attribute) -> bytes:
    """Encode an AttributeProto."""
    if isinstance(value, int):
        content, kind = _integer(3, value), _ATTRIBUTE_INT
    elif isinstance(value, str):
        content, kind = _bytes(4, value.encode()), _ATTRIBUTE_STRING
    else:
        content, kind = b"".join(_integer(8, each) for each in value), _ATTRIBUTE_INTS
    return _bytes(1, name.encode()) + content + _integer(20, kind)


def _integer(number: int, value: int) -> bytes:
    """Encode an integer field; a negative int64 is sent as its 64-bit two's complement."""
    return _varint(number << 3 | _VARINT) + _varint(value & (1 << 64) - 1)


def _bytes(number: int, value: bytes) -> bytes:
    """Encode a field of bytes, text, or another message."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Encode a non-negative integer, seven bits to a byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
