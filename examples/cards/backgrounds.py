"""Procedural backgrounds, in families; each split of the image set has its own.

`SPLIT_FAMILIES` tells which families a split draws from. `SPLITS` numbers the splits, and the
number is part of every texture's seed: no two splits share a texture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
"""A picture of bytes, mostly BGR of shape (height, width, 3); OpenCV's stubs name no dtypes."""

Family = Callable[[np.random.Generator, int, int], Image]
"""Makes a texture: generator, width and height in pixels to BGR of shape (height, width, 3)."""

SPLITS = {"train": 0, "calibration": 1, "test": 2}

VIVID = (
    (54, 67, 244), (40, 167, 255), (47, 202, 255), (80, 175, 76), (243, 150, 33), (176, 39, 156),
    (72, 85, 121), (245, 245, 245), (33, 33, 33), (154, 174, 244), (201, 188, 120), (99, 30, 233),
)  # fmt: skip
"""BGR colours like those of the emoji, so that colour alone gives no object away."""


def colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a BGR colour: vivid, or more often a dull one as rooms have them."""
    if rng.random() < 0.25:
        return VIVID[rng.integers(len(VIVID))]
    grey = rng.uniform(25, 235)
    blue, green, red = np.clip(grey + rng.normal(0, 28, 3), 0, 255)
    return int(blue), int(green), int(red)


def colours(rng: np.random.Generator, number: int) -> NDArray[np.float32]:
    """Draw several colours, float32, of shape (number, 3)."""
    return np.array([colour(rng) for _ in range(number)], np.float32)


def noise(
    rng: np.random.Generator, width: int, height: int, cells: tuple[float, float], octaves: int
) -> NDArray[np.float32]:
    """Make fractal noise: float32 of shape (height, width), 0 to 1.

    Args:
        rng: Source of all randomness.
        width: In pixels.
        height: In pixels.
        cells: Columns and rows of the coarsest octave's grid.
        octaves: Number of grids, each with twice the columns and rows of the one before.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        columns, rows = (min(64, max(2, round(each * 2**octave))) for each in cells)
        grid = rng.random((rows, columns), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    cv2.normalize(total, total, 0, 1, cv2.NORM_MINMAX)
    return total


def painted(
    values: NDArray[np.float32], stops: NDArray[np.float32], size: tuple[int, int]
) -> Image:
    """Colour a map of values 0 to 1 by a gradient of BGR stops, and resize it to `size`."""
    positions = np.linspace(0, len(stops) - 1, 256)
    table = np.stack([np.interp(positions, np.arange(len(stops)), each) for each in stops.T], -1)
    levels = cv2.convertScaleAbs(values, alpha=255)
    picture = cv2.applyColorMap(levels, np.rint(table).astype(np.uint8).reshape(256, 1, 3))
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def _gradient(rng: np.random.Generator, width: int, height: int) -> Image:
    y, x = np.mgrid[0:1:48j, 0:1:48j].astype(np.float32)
    angle = rng.uniform(0, math.tau)
    if rng.random() < 0.5:
        values = (x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle)
    else:
        values = np.hypot(x - rng.random(), y - rng.random())
    cv2.normalize(values, values, 0, 1, cv2.NORM_MINMAX)
    return painted(values, colours(rng, rng.integers(2, 4)), (width, height))


def _clouds(rng: np.random.Generator, width: int, height: int) -> Image:
    scale = rng.uniform(1.5, 7)
    values = noise(rng, max(8, width // 2), max(8, height // 2), (scale, scale), 4)
    return painted(values, colours(rng, rng.integers(2, 5)), (width, height))


def _polygons(rng: np.random.Generator, width: int, height: int) -> Image:
    image = _filled(width, height, colour(rng))
    for _ in range(rng.integers(6, 28)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        points = centre + rng.normal(0, 0.22 * min(width, height), (rng.integers(3, 6), 2))
        cv2.fillPoly(image, [points.astype(np.int32)], colour(rng), cv2.LINE_AA)
    return image


def _shelves(rng: np.random.Generator, width: int, height: int) -> Image:
    image = _filled(width, height, colour(rng))
    short = min(width, height)
    board = colour(rng)
    top = -rng.uniform(0, 0.3) * short
    while top < height:
        step = rng.uniform(0.2, 0.5) * short
        left = -rng.uniform(0, 0.1) * short
        while left < width:
            wide = max(2.0, rng.uniform(0.03, 0.25) * short)
            high = step * rng.uniform(0.4, 0.95)
            first = (int(left), int(top + step - high))
            last = (int(left + wide * 0.9), int(top + step))
            shade = colour(rng)
            cv2.rectangle(image, first, last, shade, cv2.FILLED)
            if rng.random() < 0.4:  # a label or a spine's stripe
                middle = int(top + step - high * rng.uniform(0.3, 0.8))
                cv2.rectangle(image, (first[0], middle), (last[0], middle + 2), colour(rng), -1)
            left += wide
        edge = int(top + step)
        cv2.rectangle(image, (0, edge), (width, edge + max(1, short // 40)), board, cv2.FILLED)
        top += step + short / 40
    return image


def _tiles(rng: np.random.Generator, width: int, height: int) -> Image:
    side = max(4, int(rng.uniform(0.05, 0.35) * min(width, height)))
    shape = (height // side + 2, width // side + 2)
    pair = colours(rng, 2)
    chosen = np.indices(shape).sum(axis=0) % 2 if rng.random() < 0.5 else np.zeros(shape, int)
    tiles = np.clip(pair[chosen] + rng.normal(0, 8, (*shape, 1)), 0, 255).astype(np.uint8)
    image = cv2.resize(tiles, None, fx=side, fy=side, interpolation=cv2.INTER_NEAREST)
    gap = colour(rng)
    for x in range(0, image.shape[1], side):
        cv2.line(image, (x, 0), (x, image.shape[0]), gap, max(1, side // 16))
    for y in range(0, image.shape[0], side):
        cv2.line(image, (0, y), (image.shape[1], y), gap, max(1, side // 16))
    return np.ascontiguousarray(_turned(rng, image, width, height))


def _brick(rng: np.random.Generator, width: int, height: int) -> Image:
    high = max(4, int(rng.uniform(0.04, 0.14) * min(width, height)))
    wide = int(high * rng.uniform(1.8, 3.2))
    image = _filled(width, height, colour(rng))
    base = colours(rng, 1)[0]
    gap = max(1, high // 8)
    for row, y in enumerate(range(0, height, high)):
        for x in range(-(row % 2) * wide // 2, width, wide):
            shade = np.clip(base + rng.normal(0, 18), 0, 255)
            last = (x + wide - gap, y + high - gap)
            cv2.rectangle(image, (x, y), last, tuple(map(int, shade)), cv2.FILLED)
    return image


def _carpet(rng: np.random.Generator, width: int, height: int) -> Image:
    small = (max(8, width // 2), max(8, height // 2))
    values: NDArray[Any] = rng.random(small[::-1], np.float32)
    reach = int(rng.integers(1, 4))
    values = cv2.blur(values, (reach, int(rng.integers(1, 4))))
    values = 0.6 * values + 0.4 * noise(rng, *small, (3, 3), 2)
    return painted(values, colours(rng, 3), (width, height))


def _scribbles(rng: np.random.Generator, width: int, height: int) -> Image:
    paper = tuple(map(int, np.clip(rng.uniform(180, 250) + rng.normal(0, 8, 3), 0, 255)))
    image = _filled(width, height, paper)
    ink = colour(rng) if rng.random() < 0.4 else (40, 30, 30)
    line = max(5, int(rng.uniform(0.035, 0.11) * min(width, height)))
    for y in range(line, height + line, int(line * 1.5)):
        x = rng.integers(0, 3 * line)
        while x < width:
            letters = rng.integers(6, 22)
            strokes = np.column_stack(
                [
                    x + np.arange(letters) * line * 0.22 + rng.normal(0, line * 0.1, letters),
                    y + rng.uniform(-0.5, 0.5, letters) * line * 0.8,
                ]
            )
            cv2.polylines(
                image, [strokes.astype(np.int32)], False, ink, max(1, line // 9), cv2.LINE_AA
            )
            x += int(letters * line * 0.22 + line)
    return image


def _stripes(rng: np.random.Generator, width: int, height: int) -> Image:
    side = int(1.5 * max(width, height)) + 2
    bands = rng.integers(6, 60)
    palette = colours(rng, rng.integers(2, 5)).astype(np.uint8)
    rows = palette[rng.integers(0, len(palette), bands)].reshape(bands, 1, 3)
    image = cv2.resize(rows, (side, side), interpolation=cv2.INTER_NEAREST)
    return _turned(rng, image, width, height, whole=True)


def _wood(rng: np.random.Generator, width: int, height: int) -> Image:
    small = (max(8, width // 2), max(8, height // 2))
    along = (rng.uniform(1.2, 2.5), rng.uniform(5, 12))
    values = noise(rng, *small, along if rng.random() < 0.5 else along[::-1], 3)
    rings = np.abs(np.sin(values * rng.uniform(8, 30)))
    values = 0.7 * rings + 0.3 * values
    light = np.array([120, 165, 205], np.float32) * rng.uniform(0.5, 1.15) + rng.normal(0, 12, 3)
    stops = np.clip(np.stack([light * rng.uniform(0.4, 0.75), light]), 0, 255)
    image = painted(values, stops.astype(np.float32), (width, height))
    step = int(rng.uniform(0.15, 0.5) * min(width, height)) + 2
    for y in range(int(rng.integers(step)), height, step):  # gaps between planks
        cv2.line(image, (0, y), (width, y), tuple(map(int, stops[0] * 0.5)), 1 + height // 200)
    return image


def _bokeh(rng: np.random.Generator, width: int, height: int) -> Image:
    small = (max(8, width // 2), max(8, height // 2))
    image = _filled(*small, tuple(map(int, rng.uniform(0, 90, 3))))
    for _ in range(rng.integers(8, 40)):
        x, y = (int(rng.integers(side)) for side in small)
        radius = max(2, int(rng.uniform(0.02, 0.14) * min(small)))
        left, top = max(0, x - radius - 1), max(0, y - radius - 1)
        part = image[top : y + radius + 2, left : x + radius + 2]
        light = np.zeros_like(part)
        cv2.circle(light, (x - left, y - top), radius, colour(rng), -1, cv2.LINE_AA)
        part[:] = cv2.addWeighted(part, 1, light, rng.uniform(0.2, 0.8), 0)  # they add up
    image = cv2.blur(image, (3, 3))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _marble(rng: np.random.Generator, width: int, height: int) -> Image:
    small = (max(8, width // 2), max(8, height // 2))
    values = noise(rng, *small, (2, 2), 4)
    slope = np.linspace(0, rng.uniform(2, 10), small[0], dtype=np.float32)
    veins = np.abs(np.sin(slope + values * rng.uniform(6, 16))) ** rng.uniform(0.3, 1)
    return painted(veins.astype(np.float32), colours(rng, rng.integers(2, 4)), (width, height))


def _grass(rng: np.random.Generator, width: int, height: int) -> Image:
    base = colours(rng, 1)[0] * 0.5 + np.array([40, 120, 70], np.float32) * rng.uniform(0.3, 0.8)
    image = _filled(width, height, tuple(map(int, np.clip(base * 0.5, 0, 255))))
    short = min(width, height)
    for shade in np.linspace(0.6, 1.4, 5):
        roots = rng.uniform(-0.1, 1.1, (40, 2)) * (width, height)
        tips = roots + np.column_stack(
            [rng.normal(0, 0.07 * short, 40), -rng.uniform(0.08, 0.3, 40) * short]
        )
        blades = np.stack([roots, tips], axis=1).astype(np.int32)
        tone = tuple(map(int, np.clip(base * shade + rng.normal(0, 10, 3), 0, 255)))
        cv2.polylines(image, list(blades), False, tone, max(1, short // 90), cv2.LINE_AA)
    return image


FAMILIES: dict[str, Family] = {
    "gradient": _gradient, "clouds": _clouds, "polygons": _polygons, "shelves": _shelves,
    "tiles": _tiles, "brick": _brick, "carpet": _carpet, "scribbles": _scribbles,
    "stripes": _stripes, "wood": _wood, "bokeh": _bokeh, "marble": _marble, "grass": _grass,
}  # fmt: skip

_COMMON = ("gradient", "clouds", "polygons", "shelves", "tiles")
_LEARNED = (*_COMMON, "brick", "carpet", "scribbles", "stripes")
SPLIT_FAMILIES = {
    "train": _LEARNED,
    "calibration": _LEARNED,
    "test": (*_COMMON, "wood", "bokeh", "marble", "grass"),
}
"""Half of what `test` shows is of kinds that were never seen in training."""


def draw_background(
    rng: np.random.Generator, split: str, size: tuple[int, int]
) -> tuple[str, int, Image]:
    """Choose a family of the split and a texture seed that only this split uses, and draw it.

    Args:
        rng: Source of all randomness.
        split: A key of `SPLITS`.
        size: Width and height in pixels.

    Returns:
        The family's name, the texture's seed, and the picture: BGR uint8 of shape
        (height, width, 3).
    """
    families = SPLIT_FAMILIES[split]
    family = families[rng.integers(len(families))]
    seed = SPLITS[split] << 40 | int(rng.integers(1 << 40))
    return family, seed, FAMILIES[family](np.random.default_rng(seed), *size)


def _filled(width: int, height: int, shade: tuple[int, ...]) -> Image:
    image = np.empty((height, width, 3), np.uint8)
    image[:] = shade
    return image


def _turned(
    rng: np.random.Generator, image: Image, width: int, height: int, whole: bool = False
) -> Image:
    """Turn a texture: by any angle if it is large enough (`whole`), else by a few degrees.

    Where the texture ends, it is continued as in a mirror.
    """
    angle = rng.uniform(0, 360) if whole else rng.uniform(-25, 25)
    matrix: NDArray[Any] = cv2.getRotationMatrix2D(
        (image.shape[1] / 2, image.shape[0] / 2), angle, 1
    )
    matrix[:, 2] += (width - image.shape[1]) / 2, (height - image.shape[0]) / 2
    return cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
