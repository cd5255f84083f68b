"""Show many card images on one picture.

    python -m examples.cards.sheet FILE --split test --side 128

in the clone's root shows the images with which `examples.cards.render` begins.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from examples.cards.backgrounds import SPLITS, Image
from examples.cards.classes import CLASSES
from examples.cards.render import RenderError, render


def sheet(
    split: str, images: int, first: int, columns: int, side: int, seed: int, difficulty: float
) -> Image:
    """Render images `first` and on, and put them in rows.

    Args:
        split: As in `render`, as are `seed` and `difficulty`.
        images: Number of images.
        first: Number of the first one; image `i` is of class `i % 100`.
        columns: Images in a row.
        side: Width and height of each in the sheet; they are rendered at 256x256.
        seed: Seed of the set.
        difficulty: Strength of the degradations.

    Returns:
        BGR, uint8, of shape (rows * side, columns * side, 3); black where no image is left.

    Raises:
        RenderError: An argument is out of its range.
    """
    if min(images, columns, side) < 1:
        raise RenderError("images, columns and side are 1 or more")
    rows = -(-images // columns)
    whole = np.zeros((rows * side, columns * side, 3), np.uint8)
    for place in range(images):
        number, class_index = divmod(first + place, len(CLASSES))
        image = render(class_index, seed, split, (256, 256), difficulty, number)
        top, left = (each * side for each in divmod(place, columns))
        whole[top : top + side, left : left + side] = cv2.resize(
            image, (side, side), interpolation=cv2.INTER_AREA
        )
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Write a sheet as the command line says; return the exit status."""
    parser = argparse.ArgumentParser("python -m examples.cards.sheet", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, metavar="FILE", help="picture to write, .png or .jpg")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--images", type=int, default=100, help="default 100")
    parser.add_argument("--first", type=int, default=0, help="number of the first; default 0")
    parser.add_argument("--columns", type=int, default=10, help="images in a row; default 10")
    parser.add_argument("--side", type=int, default=128, help="pixels of each; default 128")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--difficulty", type=float, default=1.0, help="0 to 2; default 1")
    given = parser.parse_args(arguments)
    try:
        picture = sheet(
            given.split,
            given.images,
            given.first,
            given.columns,
            given.side,
            given.seed,
            given.difficulty,
        )
    except RenderError as error:
        print(f"sheet: {error}", file=sys.stderr)
        return 2
    try:
        is_written = cv2.imwrite(str(given.file), picture)
    except cv2.error:  # a suffix that names no format
        is_written = False
    if not is_written:
        print(f"sheet: cannot write {given.file}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
