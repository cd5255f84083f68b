"""Command-line options that several commands share, made from the option table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from efv2_ros.classify.option_table import Option
from efv2_ros.classify.options import MODEL_OPTIONS, VIEW_OPTIONS, ModelRequest, ViewOptions
from efv2_ros.vision.nv12 import Roi

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = {**MODEL_OPTIONS, **VIEW_OPTIONS}

_REQUEST_NAMES = (
    "model_size", "model_path", "catalog_file", "mean", "scale", "labels_file", "nv12_range",
    "runtime", "threads", "bpu_core", "bpu_priority", "infer_timeout", "allow_download",
    "allow_untrained",
)  # fmt: skip
"""Options of a model that every command offers; `slots` is another one's in each."""

_FIT_NAMES = ("fit", "antialias")

_VIEW_NAMES = (*_FIT_NAMES, "roi", "max_pixels", "top_k", "score_threshold")


class Parsed(click.ParamType):  # type: ignore[type-arg]
    """Type of an option whose text a function reads, which raises ValueError."""

    def __init__(self, metavar: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = metavar, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the text, or fail with a usage error."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class FiniteRange(click.FloatRange):
    """Type of an option with a number in a range; NaN is in none, though click lets it pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number, or fail with a usage error."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


ROI = Parsed("X,Y,WIDTH,HEIGHT", Roi.parse)


def table_option(name: str, **attributes: Any) -> Callable[[Command], Command]:
    """Make the click option of an entry of the option table.

    Args:
        name: The option's name in the table.
        **attributes: Arguments of `click.option` that differ for one command.
    """
    option = _OPTIONS[name]
    flags = {each.name: each.flag or each.name for each in _OPTIONS.values()}
    shared: dict[str, Any] = {
        "help": f"{option.template.format_map(flags)}.",
        "type": _type_of(option),
        "metavar": option.metavar,
    }
    flag = option.flag
    if option.default is True:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    if option.kind is bool:
        shared["is_flag"] = True
    if option.parse is None and option.default is not False:
        shared |= {"default": option.default, "show_default": bool(option.default != "")}
    return click.option(flag, name, **{**shared, **attributes})


def _type_of(option: Option) -> Any:
    if option.choices:
        return click.Choice(option.choices)
    if option.parse is not None:
        return Parsed(option.metavar or "TEXT", option.parse)
    if option.limits is None:
        return option.kind
    low, high = option.limits
    return FiniteRange(low, high) if option.kind is float else click.IntRange(int(low), int(high))


def _decorate(command: Command, names: Sequence[str]) -> Command:
    for name in reversed(names):
        command = table_option(name)(command)
    return command


def model_options(command: Command) -> Command:
    """Add the options that say which model to run; see `split_request`."""
    return _decorate(command, _REQUEST_NAMES)


def split_request(options: dict[str, Any]) -> ModelRequest:
    """Take the options of `model_options` out of `options`."""
    return ModelRequest(**{name: options.pop(name) for name in _REQUEST_NAMES})


def fit_options(command: Command) -> Command:
    """Add the options `fit` and `antialias`."""
    return _decorate(command, _FIT_NAMES)


def view_options(command: Command) -> Command:
    """Add the options that say how an image is handled; see `split_view`."""
    return _decorate(command, _VIEW_NAMES)


def split_view(options: dict[str, Any]) -> ViewOptions:
    """Take the options of `view_options` out of `options`."""
    return ViewOptions(**{name: options.pop(name) for name in _VIEW_NAMES})


def ros_is_missing(error: ImportError) -> click.ClickException:
    """Make the error of a command that needs ROS, where its import failed."""
    return click.ClickException(
        f"ROS 2 is not here ({error}): source its setup file, or run scripts/demo of the source, "
        "which brings ROS along"
    )
