"""Dataclasses as JSON, and back with a check of every field."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from efv2_ros.toolchain.environment import ToolchainError

_T = TypeVar("_T")


def decode(kind: type[_T], message: Any, where: str = "") -> _T:
    """Read a dataclass from JSON's types.

    Args:
        kind: The dataclass.
        message: A mapping with exactly its fields; those with a default may be missing.
        where: What the message is part of, for errors.

    Raises:
        ToolchainError: A field is missing, unknown or of another type; the message names it.
    """
    value: _T = _decode(kind, message, where or kind.__name__)
    return value


def plain(value: Any) -> Any:
    """Convert to JSON's types: dataclasses to mappings, tuples to lists, paths to texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, value, where)
    if origin is Literal:
        if value in arguments and type(value) is type(arguments[0]):
            return value
    elif origin in (Union, types.UnionType):
        if value is None:
            return None
        return _decode(arguments[0], value, where)
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(
                _decode(arguments[0], each, f"{where}[{index}]")
                for index, each in enumerate(value)
            )
    elif origin is Mapping:
        if isinstance(value, dict):
            return {
                str(key): _decode(arguments[1], each, f"{where}.{key}")
                for key, each in value.items()
            }
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif kind is Path:
        if isinstance(value, str):
            return Path(value)
    elif type(value) is kind:
        return value
    raise ToolchainError(f"a program of the toolchain sent {where} = {brief(value)}")


def _decode_fields(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ToolchainError(f"a program of the toolchain sent {where} = {brief(value)}")
    fields = {each.name: each for each in dataclasses.fields(kind)}
    needed = {name for name, each in fields.items() if each.default is dataclasses.MISSING}
    wrong = sorted((needed - set(value)) | (set(value) - set(fields)))
    if wrong:
        verb = "without" if wrong[0] in needed else "with an unknown"
        raise ToolchainError(f"a program of the toolchain sent {where} {verb} {wrong[0]}")
    hints = _hints(kind)
    return kind(**{
        name: _decode(hints[name], each, f"{where}.{name}") for name, each in value.items()
    })  # fmt: skip


def brief(value: Any) -> str:
    """Show a value in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
