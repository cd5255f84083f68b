"""Declaration of the classifier's options.

A field of a dataclass declares an option once. The ROS parameter, the launch argument, the
command-line option and the tables of the documents are generated from it or tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, TypeVar, cast

T = TypeVar("T")

Value = bool | int | float | str
"""A value as ROS parameters and launch arguments have it."""

_KEY = "option"
_MOST_CHARACTERS = 80
"""Length at which an error message cuts the value off."""


class Change(Enum):
    """When a parameter may be set; the value is a phrase for people."""

    ALWAYS = "at any time"
    UNCONFIGURED = "while unconfigured (`ros2 lifecycle set NODE cleanup` after deactivate)"
    START = "only at start"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the classifier.

    Attributes:
        name: Name of the parameter, of the launch argument and of the Python attribute.
        default: Default of the parameter; its type is the parameter's.
        template: Description, with the names of other options in braces: the command line has
            another name for some.
        change: When the parameter may be set.
        choices: All values; empty if they cannot be listed.
        limits: Smallest and largest number allowed; None without a range.
        unit: Unit of a number.
        parse: Function that reads the text of an option which is no text in Python, and raises
            ValueError. An empty text is None.
        flag: Name on the command line; empty if no command offers the option.
        metavar: Name of the value in the command line's help; None for click's own.
        is_list: Whether a list of texts may stand for a text with commas.
    """

    name: str
    default: Value
    template: str
    change: Change = Change.ALWAYS
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    unit: str = ""
    parse: Callable[[str], Any] | None = None
    flag: str = ""
    metavar: str | None = None
    is_list: bool = False

    @property
    def kind(self) -> type[Value]:
        """Type of the parameter: bool, int, float or str."""
        return type(self.default)

    @property
    def description(self) -> str:
        """The description, with other options under their ROS names."""
        return self.template.replace("{", "").replace("}", "")

    @property
    def range(self) -> str:
        """The limits with the unit, such as "0.1 to 60 s"; empty without limits."""
        if self.limits is None:
            return ""
        low, high = (str(int(each)) if each == int(each) else f"{each:g}" for each in self.limits)
        return f"{low} to {high} {self.unit}".rstrip()

    def check(self, value: Value) -> None:
        """Refuse a value of another type, out of range or of the wrong syntax.

        Raises:
            ValueError: The message names the option and says which values it takes.
        """
        self.attribute(value)

    def check_type(self, value: Any) -> None:
        """Refuse a value of another type; a whole number may stand for a float.

        Raises:
            ValueError: The message names the option and its type.
        """
        if not _is_a(value, self.kind):
            raise ValueError(
                f"{self.name} is of type {self.kind.__name__}, {quoted(value)} is not"
            )

    def plain(self, value: Any) -> Any:
        """Return a value as it is, or the text that a list of texts stands for."""
        if self.is_list and not isinstance(value, (str, bytes)) and isinstance(value, Sequence):
            return ",".join(map(str, value))
        return value

    def attribute(self, value: Value) -> Any:
        """Check a parameter's value and convert it to the Python attribute's.

        Raises:
            ValueError: As `check`.
        """
        self.check_type(value)
        shown = quoted(value)
        if self.choices and value not in self.choices:
            choices = ", ".join(self.choices)
            raise ValueError(f"{self.name} must be one of {choices}, not {shown}")
        if self.limits is not None:
            low, high = self.limits
            is_inside = low <= cast(float, value) <= high  # False for NaN
            if not is_inside:
                raise ValueError(f"{self.name} must be {self.range}, not {shown}")
        if self.parse is None:
            return value
        text = str(value).strip()
        try:
            return self.parse(text) if text else None
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None


def option(
    default: T,
    template: str,
    change: Change = Change.ALWAYS,
    *,
    choices: tuple[str, ...] = (),
    limits: tuple[float, float] | None = None,
    unit: str = "",
    parse: Callable[[str], T] | None = None,
    flag: str = "",
    metavar: str | None = None,
    is_list: bool = False,
    compare: bool = True,
) -> T:
    """Declare an option as a dataclass field; `options_of` gives the `Option`.

    Args:
        default: Default of the attribute. With `parse` it is None, and "" in ROS.
        template: See `Option`, as for the next ones.
        change: See `Option`.
        choices: See `Option`.
        limits: See `Option`.
        unit: See `Option`.
        parse: See `Option`.
        flag: See `Option`.
        metavar: See `Option`.
        is_list: See `Option`.
        compare: Whether two objects that differ in this field are unequal.
    """
    declared = Option(
        "",
        cast(Value, default) if parse is None else "",
        template,
        change,
        choices,
        limits,
        unit,
        parse,
        flag,
        metavar,
        is_list,
    )
    return field(default=default, compare=compare, metadata={_KEY: declared})


def options_of(declaring: type[Any]) -> dict[str, Option]:
    """The options that a dataclass declares, by name and in their order."""
    return {
        each.name: replace(each.metadata[_KEY], name=each.name)
        for each in fields(declaring)
        if _KEY in each.metadata
    }


def _is_a(value: Value, kind: type[Value]) -> bool:
    """Whether a value is of a type. An int is a float; a bool is no number."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def quoted(value: Value) -> str:
    """A value as an error message shows it: between quotes, and cut off if it is long."""
    text = str(value)
    return f"'{text}'" if len(text) <= _MOST_CHARACTERS else f"'{text[:_MOST_CHARACTERS]}...'"
