"""Where a viewer draws text and an outline over a picture, as plain values."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from efv2_ros.vision.seen import Seen

Rgba = tuple[float, float, float, float]
"""Red, green, blue and opacity, each in 0..1."""

WHITE: Rgba = (1.0, 1.0, 1.0, 1.0)
SHADE: Rgba = (0.0, 0.0, 0.0, 0.5)
"""Behind the text: white on it is readable on any picture."""

_LINES_PER_HEIGHT = 20
"""Lines of text that fill the picture's height, as in `annotate`."""

_CELL = 0.6
"""Width of a character of a monospaced font, divided by the font size."""

_THICKNESS = 0.004
"""Thickness of the outline, divided by the picture's longer side."""


class Label(NamedTuple):
    """A line of text.

    Attributes:
        x: Left edge, in pixels.
        y: Lower edge, in pixels.
        text: The text.
    """

    x: float
    y: float
    text: str


class Overlay(NamedTuple):
    """What to draw over a picture; positions are pixels from its upper left corner.

    Attributes:
        labels: The lines of text, from top to bottom.
        font_size: Height of a line, in pixels.
        outline: Corners of a closed line, as (x, y); none if there is nothing to outline.
        thickness: Thickness of the line, in pixels.
    """

    labels: tuple[Label, ...]
    font_size: float
    outline: tuple[tuple[float, float], ...]
    thickness: float


def overlay(seen: Seen, lines: Sequence[str]) -> Overlay:
    """Stack lines of text in the upper left corner, and outline what the network sees.

    The text's size follows the picture's size and shrinks until every line fits. There is no
    outline where the network sees the whole picture.

    Args:
        seen: The picture's size, and what the network sees of it.
        lines: The lines of text, from top to bottom.
    """
    cells = 1 + max(map(_cells, lines), default=0)
    font_size = min(
        seen.height / max(_LINES_PER_HEIGHT, len(lines) + 1), seen.width / (cells * _CELL)
    )
    margin = font_size / 2
    labels = (
        Label(margin, margin + font_size * row, line) for row, line in enumerate(lines, start=1)
    )
    thickness = max(1.0, max(seen.width, seen.height) * _THICKNESS)
    return Overlay(tuple(labels), font_size, seen.corners, thickness)


def _cells(line: str) -> int:
    """Count the cells of a line: East Asian characters are twice as wide as others."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)
