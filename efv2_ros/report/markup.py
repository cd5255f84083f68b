"""HTML and SVG elements whose text is escaped unless it says that it is markup already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"img", "link", "meta"})
"""Elements that HTML writes without an end tag."""


class Html(str):
    """Markup. Whatever is made of it by other means than this module is plain text again."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: object) -> Html:
    """An element; children that are not `Html` and all values of attributes are escaped.

    Args:
        name: The element's.
        children: Its content.
        attributes: By name, with `_` for `-` and at the end of what is a keyword of Python;
            those that are None are left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    start = f"<{name}{written}>"
    return Html(start if name in _VOID else f"{start}{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Several children one after the other."""
    return Html("".join(each if isinstance(each, Html) else escape(each) for each in children))


def count(number: int, noun: str, plural: str = "") -> str:
    """A number of things, such as `1 image` and `2,000 images`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def number_cell(text: str) -> Html:
    """A cell of a table with a figure, aligned with those above and below."""
    return element("td", text, class_="number")


def name_cell(name: str, swatch: str | None = None) -> Html:
    """The first cell of a row.

    Args:
        name: What the row is about.
        swatch: A class of the style sheet, for a spot of its colour.
    """
    marked = element("span", name, class_=f"swatch {swatch}") if swatch else name
    return element("th", marked, scope="row")


def table(label: str, headings: Iterable[str], rows: Iterable[Iterable[Html]]) -> Html:
    """A table that scrolls sideways where it is too wide.

    Args:
        label: What it shows, for those who do not see it.
        headings: Of the columns; those that start with `#` stand above figures.
        rows: Cells.
    """
    head = [
        element("th", each.removeprefix("#"), scope="col",
                class_="number" if each.startswith("#") else None)
        for each in headings
    ]  # fmt: skip
    body = [element("tr", *cells) for cells in rows]
    return element(
        "div",
        element("table", element("thead", element("tr", *head)), element("tbody", *body)),
        class_="scroll", role="region", tabindex=0, aria_label=label,
    )  # fmt: skip
