"""The 100 classes of the card images: names, groups and pictures."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_FOLDER = Path(__file__).parent
_CELL = (136, 128)
_COLUMNS = 10
GLYPH_SIDE = 136
"""Width and height of a class's picture in pixels."""


class CardClass(NamedTuple):
    """One class of the image set.

    Attributes:
        emoji: The character.
        code_point: Its number, as `U+1F436`.
        group: What kind of thing it is; ten classes are of each group.
        name: English name.
        name_cn: Chinese name.
        folder: Name of its folder in a rendered set; folders sort in the order of the classes.
    """

    emoji: str
    code_point: str
    group: str
    name: str
    name_cn: str
    folder: str


def _read_classes() -> tuple[CardClass, ...]:
    entries = json.loads((_FOLDER / "classes.json").read_text(encoding="utf-8"))
    folders = (entry["name"].lower().replace(" ", "_").replace("-", "_") for entry in entries)
    return tuple(
        CardClass(**entry, folder=f"{index:03d}_{folder}")
        for index, (entry, folder) in enumerate(zip(entries, folders, strict=True))
    )


CLASSES = _read_classes()


@lru_cache(maxsize=1)
def glyphs() -> NDArray[np.uint8]:
    """Return all pictures: BGRA with premultiplied alpha, uint8, of shape (100, 136, 136, 4).

    They are shared, and therefore read-only.

    Raises:
        FileNotFoundError: emoji.png is missing.
    """
    path = _FOLDER / "emoji.png"
    atlas = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if atlas is None:
        raise FileNotFoundError(f"cannot read {path}; make_emoji.py makes it")
    width, height = _CELL
    rows = atlas.shape[0] // height
    cells = atlas.reshape(rows, height, _COLUMNS, width, 4).swapaxes(1, 2)
    cells = cells.reshape(-1, height, width, 4)
    top = (GLYPH_SIDE - height) // 2
    squares = np.zeros((len(cells), GLYPH_SIDE, GLYPH_SIDE, 4), np.uint8)
    alpha = cells[..., 3:].astype(np.uint16)
    squares[:, top : top + height, :, :3] = (cells[..., :3] * alpha + 127) // 255
    squares[:, top : top + height, :, 3:] = cells[..., 3:]
    squares.setflags(write=False)
    return squares
