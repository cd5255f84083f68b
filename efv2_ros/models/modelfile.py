"""Check a model file and read its format, shapes and metadata, without a runtime.

Both formats are one protobuf message: ONNX's `ModelProto` (onnx.proto), and the `ModelProto` of
`runtime.proto` in a `.bin` for the BPU. The fields of a whole file end exactly at its last byte,
so walking them shows whether a file was cut short or is something else. This needs no `onnx`
package, which a board does not have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from efv2_ros.errors import Efv2Error

ModelFormat = Literal["bin", "onnx"]
MODEL_FORMATS: tuple[ModelFormat, ...] = ("bin", "onnx")
Nv12Range = Literal["full", "limited"]

# hb_mapper's names for `input_space_and_range`.
_RANGES: Mapping[str, Nv12Range] = {"regular": "full", "bt601_video": "limited"}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types
_WEB_PAGE_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")


class ModelError(Efv2Error):
    """A model that cannot be used; the message says what to do."""


class ModelFormatError(ModelError):
    """A file that is not a model, or a model of another format than the one needed."""


class ModelCorruptError(ModelError):
    """A file that differs from its lock file, whether it is on disk or just fetched."""


@dataclass(frozen=True)
class ModelFile:
    """A well-formed model file and what it says of itself.

    Attributes:
        path: The file.
        format: Its format, judged by its content and not by its name.
        size: Size in bytes.
        sha256: SHA-256 digest in lower-case hexadecimal.
        input_shapes: Shape of each input that is not a weight, with None for a dynamic dimension.
            Those of a `.bin` are the BPU's, 1 x height x width x channels.
        output_shapes: Shape of each output, in the same form.
        metadata: ONNX `metadata_props`; in a `.bin`, the settings it was compiled with.
    """

    path: Path
    format: ModelFormat
    size: int
    sha256: str
    input_shapes: tuple[tuple[int | None, ...], ...]
    output_shapes: tuple[tuple[int | None, ...], ...]
    metadata: Mapping[str, str]

    @property
    def untrained(self) -> bool:
        """Whether the metadata says that the weights were never trained."""
        return self.metadata.get("weights", "").startswith("untrained")

    @property
    def nv12_range(self) -> Nv12Range | None:
        """Value range of the NV12 image a `.bin` was compiled for; None if it does not say."""
        return _RANGES.get(self.metadata.get("INPUT_SPACE_AND_RANGE", "").rstrip(";"))


def read_model_file(
    path: Path, format: ModelFormat, *, expected_sha256: str | None = None
) -> ModelFile:
    """Read a model file, and check its format and its checksum.

    Args:
        path: The file.
        format: The format that it must have.
        expected_sha256: The digest that it must have; None if that is not known.

    Raises:
        ModelCorruptError: Its digest is another one.
        ModelFormatError: It has another format, is empty or cut short.
        ModelError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, MemoryError) as error:  # ValueError: a NUL in the name
        raise ModelError(f"{path} cannot be read: {str(error) or 'it is too large'}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if expected_sha256 not in (None, sha256):
        raise ModelCorruptError(f"{path} has changed since it was fetched: its SHA-256 differs")
    if not content:
        raise ModelFormatError(f"{path} is empty: fetch or copy it again")
    if content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE_STARTS):
        raise ModelFormatError(
            f"{path} is a web page and not a model: the file has moved, or a login page or "
            "proxy answered instead"
        )
    try:
        fields = list(_fields(memoryview(content)))
        actual = _format_of(fields)
        if actual != format:
            raise _wrong_format(path, format, actual)
        graph = _Graph.of_onnx(fields) if actual == "onnx" else _Graph.of_bin(fields)
    except _Malformed as error:
        raise ModelFormatError(
            f"{path} is not a whole .{format} model ({error}): fetch or copy it again"
        ) from error
    return ModelFile(
        path=path,
        format=format,
        size=len(content),
        sha256=sha256,
        input_shapes=graph.input_shapes,
        output_shapes=graph.output_shapes,
        metadata=graph.metadata,
    )


def _wrong_format(path: Path, wanted: ModelFormat, actual: ModelFormat | None) -> ModelFormatError:
    if actual is None:
        return ModelFormatError(f"{path} is not a whole .{wanted} model: it holds no network")
    return ModelFormatError(
        f"{path} is a .{actual} model and a .{wanted} is needed: "
        "the BPU runtimes load .bin files, ONNX Runtime loads .onnx files"
    )


class _Malformed(ValueError):
    """Bytes that are not a protobuf message."""


_Field = tuple[int, "int | memoryview"]


def _fields(message: memoryview) -> Iterator[_Field]:
    """Iterate over the fields of a protobuf message; nested messages stay bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise _Malformed("field number 0")
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = _varint(message, position)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise _Malformed(f"wire type {wire_type}")
        if position + length > len(message):
            raise _Malformed(f"{position + length - len(message)} bytes are missing")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _Malformed("it ends inside a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Malformed("a number of more than 64 bits")


def _messages(fields: Iterator[_Field] | list[_Field], number: int) -> Iterator[memoryview]:
    for field_number, value in fields:
        if field_number == number and isinstance(value, memoryview):
            yield value


def _first(message: memoryview, number: int) -> memoryview:
    return next(_messages(_fields(message), number), memoryview(b""))


def _text(message: memoryview, number: int) -> str:
    return str(_first(message, number), "utf-8", "replace")


def _format_of(fields: list[_Field]) -> ModelFormat | None:
    # onnx.proto: graph = 7, opset_import = 8 (and producer_version = 3).
    # runtime.proto: graph = 3, graphs = 5, and no number above 6.
    messages = {number for number, value in fields if isinstance(value, memoryview)}
    if messages & {7, 8}:
        return "onnx" if messages >= {7, 8} else None
    return "bin" if messages & {3, 5} else None


@dataclass(frozen=True)
class _Graph:
    input_shapes: tuple[tuple[int | None, ...], ...] = ()
    output_shapes: tuple[tuple[int | None, ...], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_onnx(cls, model: list[_Field]) -> _Graph:
        """Read the fields of a ModelProto; their numbers are those of onnx.proto."""
        graph = list(_fields(next(_messages(model, 7))))
        weights = {_text(tensor, 8) for tensor in _messages(graph, 5)}
        inputs = [info for info in _messages(graph, 11) if _text(info, 1) not in weights]
        return cls(
            input_shapes=tuple(map(_shape, inputs)),
            output_shapes=tuple(map(_shape, _messages(graph, 12))),
            metadata={_text(entry, 1): _text(entry, 2) for entry in _messages(model, 14)},
        )

    @classmethod
    def of_bin(cls, model: list[_Field]) -> _Graph:
        """Read the fields of a ModelProto; their numbers are those of runtime.proto."""
        graph = list(_fields(next(_messages(model, 5), memoryview(b""))))
        infos = [each for info in _messages(model, 6) for each in _messages(_fields(info), 1)]
        return cls(
            input_shapes=tuple(_fixed_shape(info) for info in _messages(graph, 4)),
            output_shapes=tuple(_fixed_shape(info) for info in _messages(graph, 5)),
            metadata={_text(entry, 1): _text(entry, 2) for entry in infos},
        )


def _shape(value_info: memoryview) -> tuple[int | None, ...]:
    tensor_type = _first(_first(value_info, 2), 1)  # type.tensor_type
    dimensions = _messages(_fields(_first(tensor_type, 2)), 1)  # shape.dim
    # dim_value = 1; a dim_param, or neither, is a dynamic dimension.
    return tuple(
        next((v for n, v in _fields(d) if n == 1 and isinstance(v, int) and v > 0), None)
        for d in dimensions
    )


def _fixed_shape(value_info: memoryview) -> tuple[int | None, ...]:
    sizes, shape = _first(_first(value_info, 2), 2), []  # type.dim, all in one field
    position = 0
    while position < len(sizes):
        size, position = _varint(sizes, position)
        shape.append(size or None)
    return tuple(shape)
