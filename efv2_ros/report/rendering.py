"""Rendering of the templates: each page is one file, with its style, script and pictures in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from efv2_ros import __version__
from efv2_ros.files import open_atomic_binary
from efv2_ros.report import charts, classes
from efv2_ros.report.scales import count
from efv2_ros.report.segments import LANES
from efv2_ros.report.series import COLUMNS


def write_page(
    path: Path, template: str, styles: Sequence[str], scripts: Sequence[str], **values: object
) -> None:
    """Write an HTML page that needs no other file and no network.

    Args:
        path: The page.
        template: Name of its template, which extends `base.html`.
        styles: Names of its style sheets.
        scripts: Names of its scripts; the page allows no others.
        **values: What the template shows.

    Raises:
        FileWriteError: The file cannot be written.
    """
    script = "".join(map(_read, scripts))
    page = (
        _environment()
        .get_template(template)
        .render(
            style=Markup("".join(map(_read, styles))),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **values,
        )
    )
    with open_atomic_binary(path) as file:
        # A label from JSON may hold half a surrogate pair, which UTF-8 cannot encode.
        file.write(page.encode(errors="replace"))


@cache
def _environment() -> Environment:
    """Make the environment of the templates: what they may use besides the values of a page."""
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals.update(
        {name: getattr(charts, name) for name in charts.HEIGHTS},
        version=__version__,
        count=count,
        COLUMNS=COLUMNS,
        LANES=LANES,
        OTHER=classes.OTHER,
    )
    return environment


def _read(name: str) -> str:
    return files(__package__).joinpath("templates").joinpath(name).read_text("utf-8")
