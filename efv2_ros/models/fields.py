"""Strict reading of YAML files that users write: each error names the file and the field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efv2_ros.models.inputs import read_input, shorten
from efv2_ros.models.modelfile import ModelError

Rgb = tuple[float, float, float]

_LIMIT = 1e9  # of a mean, a scale and its inverse: the runtimes compute in float32


def read_yaml(path: Path, kind: str, error_type: type[ModelError]) -> Any:
    """Read a YAML file.

    Args:
        path: The file.
        kind: What the file is, such as "catalog".
        error_type: Type of the errors.

    Raises:
        ModelError: The file cannot be read, or is not YAML; of type `error_type`.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        content = read_input(path, max_mib=1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise error_type(f"{kind} {path} cannot be read: {reason}") from error
    try:
        return yaml.safe_load(content.decode("utf-8"))
    except RecursionError as error:
        raise error_type(f"{kind} {path} is not YAML that can be used: too deep") from error
    except Exception as error:  # of a value that does not fit its tag, PyYAML raises anything
        raise error_type(f"{kind} {path} is not YAML: {error}") from error


def key_text(key: object) -> str:
    """A YAML key as text; it may be of another type."""
    return key if isinstance(key, str) else shorten(key)


def finite(value: object) -> float | None:
    """Convert a YAML number to a float; None if it is no number, infinite, nan or too large."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def rgb_problem(name: str, values: Sequence[object]) -> str | None:
    """Say why three numbers cannot be a mean or a scale; None if they can."""
    numbers = [number for number in map(finite, values) if number is not None]
    if not len(numbers) == len(values) == 3:
        return f"expected three numbers (R, G, B), not {shorten(values)}"
    if max(map(abs, numbers)) > _LIMIT:
        return f"must be within {_LIMIT:g}, not {shorten(values)}"
    if name == "scale" and min(map(abs, numbers)) < 1 / _LIMIT:
        return f"must not be zero, as in {shorten(values)}"
    return None


REQUIRED: Any = object()


class Fields:
    """The fields of a YAML mapping. Each is taken once; those left at the end are unknown.

    Args:
        mapping: What YAML gave.
        where: Where that stands, for messages: the file, and the fields above.
        error: Type of the errors.
        kind: What the file is, such as "a catalog".

    Attributes:
        where: As given.
        remaining: The fields not taken yet.
    """

    def __init__(self, mapping: object, where: str, error: type[ModelError], kind: str) -> None:
        self.where = where
        self._error, self._kind = error, kind
        if not isinstance(mapping, dict):
            raise error(f"{where}: expected fields, not {shorten(mapping)}")
        self.remaining = dict(mapping)

    def error(self, name: object, problem: str) -> ModelError:
        """Make an error about a field."""
        return self._error(f"{self.where}.{key_text(name)}: {problem}")

    def inner(self, name: str, default: Any = REQUIRED) -> Fields:
        """Take a field that has fields itself."""
        inner = self.take(name, dict, default)
        return Fields(inner, f"{self.where}.{name}", self._error, self._kind)

    def take(self, name: str, kind: type, default: Any = REQUIRED) -> Any:
        """Take a field of a type; without a default it must be there."""
        value = self.remaining.pop(name, None)
        if value is None:
            if default is REQUIRED:
                raise self.error(name, "is missing")
            return default
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(name, f"expected {_KIND_NAMES[kind]}, not {shorten(value)}")
        return value

    def whole_number(self, name: str, limit: int, *, even: bool = False) -> int:
        """Take a whole number of 1 to `limit`."""
        value: int = self.take(name, int)
        if value < 1 or (even and value % 2):
            kind = "even and positive" if even else "positive"
            raise self.error(name, f"must be {kind}, not {shorten(value)}")
        if value > limit:
            raise self.error(name, f"must be at most {limit}, not {shorten(value)}")
        return value

    def number(self, name: str, default: Any = REQUIRED) -> float:
        """Take a finite number."""
        value = self.take(name, (int, float), default)  # type: ignore[arg-type]
        number = finite(value)
        if number is None:
            raise self.error(name, f"must be finite, not {shorten(value)}")
        return number

    def rgb(self, name: str, default: Rgb) -> Rgb:
        """Take a mean or a scale: a number for each of R, G and B."""
        values = self.take(name, list, default=list(default))
        if problem := rgb_problem(name, values):
            raise self.error(name, problem)
        return (float(values[0]), float(values[1]), float(values[2]))

    def finish(self) -> None:
        """Refuse fields that nobody took."""
        if self.remaining:
            raise self.error(next(iter(self.remaining)), f"is not a field of {self._kind}")


_KIND_NAMES: dict[Any, str] = {
    dict: "fields",
    str: "text",
    list: "a list",
    int: "a whole number",
    (int, float): "a number",
}
