"""Make a PDF of the 100 cards to print and cut out, with their English and Chinese names.

    python -m examples.cards.print docs/cards.pdf

in the clone's root; A4 portrait, twelve cards a page. Needs Pillow, and a font with Chinese
characters of Debian's package `fonts-wqy-microhei` or `fonts-noto-cjk`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.cards.classes import CLASSES, glyphs

FONTS = (
    Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"),
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"),
)
DPI = 200
COLUMNS, ROWS = 3, 4

_PAPER = (210, 297)
_CARD = (62, 68)
_EMOJI = 46
_LINES = ((57, 4.0), (62.5, 4.0))
"""Distance of each name's middle from the card's top, and its height; in mm, as all above."""

_RULE = (190, 190, 190)
_DATE = time.struct_time((2025, 1, 1, 0, 0, 0, 2, 1, 0))
"""Written into the file, so that the same cards give the same file."""


class PrintError(Exception):
    """Something that printing needs is not installed; the message says what to install."""


def pages() -> list[Any]:
    """Draw all pages.

    Returns:
        RGB pictures of `PIL.Image`, in the order of the classes.

    Raises:
        PrintError: Pillow or a font with Chinese characters is not installed.
    """
    font_file = next((each for each in FONTS if each.is_file()), None)
    if font_file is None:
        raise PrintError(
            "no font has Chinese characters: install the package fonts-wqy-microhei "
            f"or fonts-noto-cjk, which have {' or '.join(map(str, FONTS))}"
        )
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise PrintError("Pillow is not installed: pip install pillow") from None
    fonts = [ImageFont.truetype(str(font_file), _pixels(height)) for _, height in _LINES]
    drawn = []
    on_page = COLUMNS * ROWS
    margins = [
        (paper - count * card) / 2
        for paper, count, card in zip(_PAPER, (COLUMNS, ROWS), _CARD, strict=True)
    ]
    for first in range(0, len(CLASSES), on_page):
        page = Image.new("RGB", (_pixels(_PAPER[0]), _pixels(_PAPER[1])), "white")
        pen = ImageDraw.Draw(page)
        for place, card in enumerate(CLASSES[first : first + on_page]):
            row, column = divmod(place, COLUMNS)
            left, top = margins[0] + column * _CARD[0], margins[1] + row * _CARD[1]
            outline = [_pixels(each) for each in (left, top, left + _CARD[0], top + _CARD[1])]
            pen.rectangle(outline, outline=_RULE)
            corner = (_pixels(left + (_CARD[0] - _EMOJI) / 2), _pixels(top + 5))
            page.paste(Image.fromarray(_enlarged(glyphs()[first + place])), corner)
            names = (card.name, card.name_cn)
            for text, font, (down, _) in zip(names, fonts, _LINES, strict=True):
                middle = (_pixels(left + _CARD[0] / 2), _pixels(top + down))
                pen.text(middle, text, fill="black", font=font, anchor="mm")
        drawn.append(page)
    return drawn


def _pixels(millimetres: float) -> int:
    return round(millimetres / 25.4 * DPI)


def _enlarged(glyph: NDArray[np.uint8]) -> NDArray[Any]:
    """Put a picture with premultiplied alpha on white and enlarge it; RGB, uint8."""
    white = 255 - glyph[..., 3:]
    paper = np.ascontiguousarray((glyph[..., :3] + white)[..., ::-1])
    side = _pixels(_EMOJI)
    return cv2.resize(paper, (side, side), interpolation=cv2.INTER_LANCZOS4)


def main() -> int:
    """Write the PDF as the command line says; return the exit status."""
    parser = argparse.ArgumentParser("python -m examples.cards.print", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, metavar="FILE", help="PDF to write")
    given = parser.parse_args()
    try:
        first, *others = pages()
        first.save(
            given.file, "PDF", save_all=True, append_images=others, resolution=DPI, quality=85,
            title="efv2_ros: cards of 100 classes", creationDate=_DATE, modDate=_DATE,
        )  # fmt: skip
    except (PrintError, OSError) as error:
        print(f"print: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
