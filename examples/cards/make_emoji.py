"""Rebuild the names in classes.json and the atlas emoji.png from Debian's font and name lists.

Run `python -m examples.cards.make_emoji` in the clone's root. Which emoji are classes, in which
order and group, is written in `GROUPS` below; all else comes from the packages
`fonts-noto-color-emoji` and `unicode-cldr-core`. Needs Pillow.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
ANNOTATIONS = Path("/usr/share/unicode/cldr/common/annotations")
FOLDER = Path(__file__).parent
CELL = (136, 128)
"""Width and height of the font's bitmaps and of the atlas's cells."""

COLUMNS = 10

# No two that differ only in direction or in a detail of a few pixels.
GROUPS = {
    "mammals": "🐶🐱🦁🐰🐼🐷🐵🐘🐎🐮",
    "animals": "🐸🐔🐧🦉🐠🐙🐢🦋🐝🐞",
    "food": "🍕🍔🍳🧀🍞🍦🎂🍩☕🥨",
    "plants": "🍎🍌🍇🍉🍓🍍🥕🍄🌻🌵",
    "vehicles": "🚗🚑🚒🚌🚜🚲✈🚁🚀⛵",
    "signs": "🛑⛔⚠☢♻♿🚸🚷🚭🚦",
    "tools": "🔨🔧🪛🪚🪓✂🔑🧲⚙🔦",
    "weather": "☀☁🌧🌩❄⛄🌈🌪🌙🔥",
    "hands": "👍✋✊✌👌🤟🤞☝🙏💪",
    "things": "💡⏰📱💻📷📖✏☂🪑⚽",
}


class MissingError(Exception):
    """A package that this needs is not installed; the message names it."""


def names(language: str) -> dict[str, str]:
    """Read the names of all emoji, as `{emoji: name}`.

    Args:
        language: `en` or `zh`.

    Raises:
        MissingError: The names are not installed.
    """
    path = ANNOTATIONS / f"{language}.xml"
    if not path.is_file():
        raise MissingError(f"there is no {path}: install the package unicode-cldr-core")
    entries = ET.parse(path).getroot().iterfind(".//annotation[@type='tts']")
    return {entry.attrib["cp"]: entry.text or "" for entry in entries}


def draw(emoji: str) -> NDArray[np.uint8]:
    """Draw one emoji of the font: RGBA, uint8, of shape (128, 136, 4).

    Raises:
        MissingError: The font or Pillow is not installed, or the font lacks this emoji.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise MissingError("Pillow is not installed: pip install pillow") from None
    if not FONT.is_file():
        raise MissingError(f"there is no {FONT}: install the package fonts-noto-color-emoji")
    font = ImageFont.truetype(str(FONT), 109)  # the one size that this bitmap font has
    left, top, right, bottom = font.getbbox(emoji)
    if (right - left, bottom - top) != CELL:
        raise MissingError(f"{FONT} has no picture of {emoji} (U+{ord(emoji):04X})")
    # On a transparent image Pillow would mix the edges with black. On black and on white it is
    # right, and the two tell colour and opacity.
    on_black, on_white = (np.zeros((CELL[1], CELL[0], 3), np.float64) for _ in range(2))
    for ground, canvas in ((0, on_black), (255, on_white)):
        image = Image.new("RGB", CELL, (ground,) * 3)
        ImageDraw.Draw(image).text((-left, -top), emoji, font=font, embedded_color=True)
        canvas[:] = np.asarray(image)
    alpha = 255 - (on_white - on_black).mean(axis=-1, keepdims=True)
    colour = np.where(alpha > 0, on_black * 255 / np.maximum(alpha, 1), 0)
    rgba = np.concatenate([colour, alpha], axis=-1)
    pixels: NDArray[np.uint8] = np.rint(np.clip(rgba, 0, 255)).astype(np.uint8)
    return pixels


def main() -> int:
    """Write classes.json and emoji.png beside this file."""
    try:
        english, chinese = names("en"), names("zh")
        classes = [
            {
                "emoji": emoji,
                "code_point": f"U+{ord(emoji):04X}",
                "group": group,
                "name": english[emoji],
                "name_cn": chinese[emoji],
            }
            for group, members in GROUPS.items()
            for emoji in members
        ]
        glyphs = [draw(each["emoji"]) for each in classes]
    except MissingError as error:
        print(f"make_emoji: {error}", file=sys.stderr)
        return 1
    from PIL import Image

    rows = [np.hstack(glyphs[at : at + COLUMNS]) for at in range(0, len(glyphs), COLUMNS)]
    Image.fromarray(np.vstack(rows)).save(FOLDER / "emoji.png", optimize=True)
    lines = ",\n".join("  " + json.dumps(each, ensure_ascii=False) for each in classes)
    (FOLDER / "classes.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
