"""The object of a card image, as a printed card, a sticker or cut out, and what lies around it."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.cards.backgrounds import VIVID, Image, colour
from examples.cards.classes import GLYPH_SIDE
from examples.cards.placement import MIN_VISIBLE, Placement, covered, project

_SKIN = ((196, 219, 250), (150, 180, 230), (110, 145, 200), (75, 105, 160), (45, 65, 105))


class Sprite(NamedTuple):
    """A flat thing that can be put into a frame.

    Attributes:
        texture: BGRA with premultiplied alpha, uint8.
        side: Width of the emoji in the texture, in pixels.
        centre: The emoji's centre in the texture, x and y in pixels.
    """

    texture: Image
    side: int
    centre: tuple[float, float]


def make_sprite(
    rng: np.random.Generator, glyph: Image, pixels: float, difficulty: float
) -> Sprite:
    """Make a card, a sticker or a cut-out shape of an emoji.

    Args:
        rng: Source of all randomness.
        glyph: One picture of `classes.glyphs`.
        pixels: Width of the emoji in the frame; the texture needs no more resolution than that.
        difficulty: Scales faded colours, uneven light, glare and shadow.
    """
    side = round(min(GLYPH_SIDE, max(12.0, 1.1 * pixels)))
    small = cv2.resize(glyph, (side, side), interpolation=cv2.INTER_AREA)
    pad = max(2, side // 8)
    kind = rng.random()
    if kind < 0.5:
        face, mask, centre = _card(rng, small, difficulty)
        face = cv2.copyMakeBorder(face, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
        mask = cv2.copyMakeBorder(mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    else:
        padded = cv2.copyMakeBorder(small, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
        mask, centre = padded[..., 3].copy(), (side / 2, side / 2)
        face = padded[..., :3]
        if kind < 0.62:  # a sticker: its white rim follows the outline
            reach = 2 * max(1, side // 24) + 1
            mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
            face = cv2.add(face, cv2.merge([cv2.subtract(mask, padded[..., 3])] * 3))
        face = _faded(rng, face, difficulty)
    texture = _shaded(rng, face, mask, side, difficulty)
    return Sprite(texture, side, (centre[0] + pad, centre[1] + pad))


def put(image: Image, sprite: Sprite, matrix: NDArray[np.float64]) -> None:
    """Draw a sprite into a frame, in place.

    Args:
        image: The frame.
        sprite: What to draw.
        matrix: Homography from the object's plane to pixels; see `Placement`.
    """
    height, width = sprite.texture.shape[:2]
    scale, (x, y) = 1 / sprite.side, sprite.centre
    to_frame = matrix @ np.array([[scale, 0, -x * scale], [0, scale, -y * scale], [0, 0, 1]])
    outline = project(
        to_frame, np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    )
    left, top = np.maximum(np.floor(outline.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)), image.shape[1::-1]).astype(int)
    if right <= left or bottom <= top:
        return
    # OpenCV's positions are those of pixel centres, ours those of edges.
    before = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    after = np.array([[1, 0, -0.5 - left], [0, 1, -0.5 - top], [0, 0, 1]])
    size = (int(right - left), int(bottom - top))
    drawn = cv2.warpPerspective(
        sprite.texture, after @ to_frame @ before, size, flags=cv2.INTER_LINEAR
    )
    _blend(image[top:bottom, left:right], drawn)


def add_clutter(
    rng: np.random.Generator,
    image: Image,
    glyphs: Image,
    pixels: float,
    difficulty: float,
) -> None:
    """Strew coloured shapes, and sometimes a piece of another emoji, behind the object.

    Args:
        rng: Source of all randomness.
        image: The frame, drawn into.
        glyphs: All pictures.
        pixels: The object's size; a piece is smaller, so that it is never the main thing.
        difficulty: Scales how many there are.
    """
    height, width = image.shape[:2]
    short = min(width, height)
    for _ in range(rng.poisson(3 * difficulty)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        shade = VIVID[rng.integers(len(VIVID))]
        radius = rng.uniform(0.03, 0.16) * short
        shape = rng.integers(3)
        if shape == 0:
            axes = (int(radius), int(radius * rng.uniform(0.4, 1)))
            where = (int(centre[0]), int(centre[1]))
            cv2.ellipse(image, where, axes, rng.uniform(0, 180), 0, 360, shade, -1, cv2.LINE_AA)
        elif shape == 1:
            corners = int(rng.integers(3, 8))
            angles = rng.uniform(0, math.tau) + np.linspace(0, math.tau, corners, endpoint=False)
            reach = radius * np.where(np.arange(corners) % 2, rng.uniform(0.4, 1), 1)
            ring = np.column_stack([np.cos(angles), np.sin(angles)]) * reach[:, None]
            cv2.fillPoly(image, [(centre + ring).astype(np.int32)], shade, cv2.LINE_AA)
        else:
            ends = np.stack([centre, centre + rng.normal(0, 2 * radius, 2)]).astype(np.int32)
            cv2.polylines(image, [ends], False, shade, max(1, int(radius / 3)), cv2.LINE_AA)
    if rng.random() < 0.3 * difficulty:
        side = int(rng.uniform(0.4, 0.8) * min(pixels, 0.6 * short))
        if side >= 8:
            _put_piece(rng, image, glyphs[rng.integers(len(glyphs))], side)


def add_occluders(
    rng: np.random.Generator, image: Image, placement: Placement, difficulty: float
) -> float:
    """Draw fingers and shapes over the object, in place.

    With what the frame cuts off, they hide less than `1 - MIN_VISIBLE` of the object's square.

    Returns:
        The part of the square that they cover.
    """
    size = (image.shape[1], image.shape[0])
    pixels = placement.share * min(size)
    budget = min(0.3 * difficulty, placement.visible - MIN_VISIBLE)
    hidden = 0.0
    middle = placement.corners.mean(axis=0)
    for _ in range(rng.poisson(1.2 * difficulty)):
        direction = rng.uniform(0, math.tau)
        outward = np.array([math.cos(direction), math.sin(direction)])
        target = middle + outward * pixels * rng.uniform(0.1, 0.6)
        if rng.random() < 0.6:
            radius = pixels * rng.uniform(0.05, 0.11)
            shape = _capsule(target, direction + rng.normal(0, 0.3), radius, 3 * pixels)
        else:
            corners = int(rng.integers(3, 7))
            angles = np.sort(rng.uniform(0, math.tau, corners))
            reach = pixels * rng.uniform(0.08, 0.35)
            shape = target + reach * np.column_stack([np.cos(angles), np.sin(angles)])
            radius = 0.0
        part = covered(placement, shape, size)
        if hidden + part > budget:
            continue
        hidden += part
        if radius:
            _draw_finger(rng, image, shape, target, radius)
        else:
            cv2.fillConvexPoly(image, _fixed(shape), colour(rng), cv2.LINE_AA, 4)
    return hidden


def _card(
    rng: np.random.Generator, glyph: Image, difficulty: float
) -> tuple[Image, Image, tuple[float, float]]:
    """Print an emoji on a card: the card's BGR face, its mask, and the emoji's centre."""
    side = len(glyph)
    width, height = (int(side * rng.uniform(1.1, most)) for most in (1.7, 1.9))
    face = np.empty((height, width, 3), np.uint8)
    face[:] = (246, 248, 250) if rng.random() < 0.5 else colour(rng)
    if rng.random() < 0.2:  # ruled paper
        step = max(3, int(side * rng.uniform(0.08, 0.2)))
        for y in range(step, height, step):
            cv2.line(face, (0, y), (width, y), (200, 180, 160), 1)
    left, top = (int((room - side) * rng.uniform(0.25, 0.75)) for room in (width, height))
    _blend(face[top : top + side, left : left + side], glyph)
    face = _faded(rng, face, difficulty)
    if rng.random() < 0.4:
        line = max(1, int(side * rng.uniform(0.01, 0.05)))
        cv2.rectangle(face, (0, 0), (width - 1, height - 1), colour(rng), 2 * line)
    return face, _rounded(rng, width, height, side), (left + side / 2, top + side / 2)


def _rounded(rng: np.random.Generator, width: int, height: int, side: int) -> Image:
    """Mask of a card with rounded corners."""
    radius = int(side * rng.uniform(0, 0.16))
    mask = np.full((height, width), 255, np.uint8)
    if radius > 1:
        corner = np.zeros((radius, radius), np.uint8)
        cv2.circle(corner, (radius, radius), radius, (255,), -1, cv2.LINE_AA)
        mask[:radius, :radius] = corner
        mask[:radius, -radius:] = corner[:, ::-1]
        mask[-radius:, :radius] = corner[::-1]
        mask[-radius:, -radius:] = corner[::-1, ::-1]
    return mask


def _faded(rng: np.random.Generator, face: Image, difficulty: float) -> Image:
    """Print in paler colours, or seldom in grey."""
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
    is_grey = rng.random() < 0.06 * difficulty
    pale = 1.0 if is_grey else min(1.0, rng.uniform(0, 0.4) * difficulty)
    return cv2.addWeighted(face, 1 - pale, cv2.merge([grey] * 3), pale, 0)


def _shaded(
    rng: np.random.Generator,
    face: Image,
    mask: Image,
    side: int,
    difficulty: float,
) -> Image:
    """Add uneven light, glare and a soft shadow; return BGRA with premultiplied alpha."""
    height, width = mask.shape
    darkest = 255 * max(0.4, 1 - 0.3 * difficulty)
    corners = np.rint(rng.uniform(darkest, 255, (2, 2))).astype(np.uint8)
    light = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    lit = cv2.multiply(light, mask, scale=1 / 255)
    solid = cv2.multiply(face, cv2.merge([lit] * 3), scale=1 / 255)
    if rng.random() < 0.25 * difficulty:
        glare: Image = np.zeros((32, 32), np.uint8)
        where = (int(rng.integers(32)), int(rng.integers(32)))
        axes = (int(rng.integers(2, 7)), int(rng.integers(4, 16)))
        power = min(255.0, 230 * rng.random() * difficulty)
        cv2.ellipse(glare, where, axes, rng.uniform(0, 180), 0, 360, (power,), -1)
        glare = cv2.resize(cv2.blur(glare, (7, 7)), (width, height))
        glare = cv2.multiply(glare, mask, scale=1 / 255)
        solid = cv2.add(solid, cv2.merge([glare] * 3))
    shift = rng.uniform(-0.06, 0.06, 2) * side
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    reach = 2 * max(1, side // 20) + 1
    shadow = cv2.blur(cv2.warpAffine(mask, matrix, (width, height)), (reach, reach))
    strength = min(0.8, rng.uniform(0.1, 0.6) * difficulty)
    alpha = cv2.add(mask, cv2.multiply(cv2.bitwise_not(mask), shadow, scale=strength / 255))
    return cv2.merge([*cv2.split(solid), alpha])


def _blend(image: Image, drawn: Image) -> None:
    """Put BGRA with premultiplied alpha over an image of the same size, in place."""
    clear = cv2.bitwise_not(cv2.extractChannel(drawn, 3))
    below = cv2.multiply(image, cv2.merge([clear] * 3), scale=1 / 255)
    image[:] = cv2.add(below, cv2.cvtColor(drawn, cv2.COLOR_BGRA2BGR))


def _put_piece(rng: np.random.Generator, image: Image, glyph: Image, side: int) -> None:
    """Draw about a third of an emoji, cut straight, somewhere in the frame."""
    height, width = image.shape[:2]
    piece = np.rot90(
        cv2.resize(glyph, (side, side), interpolation=cv2.INTER_AREA), rng.integers(4)
    )
    piece = piece[: int(side * rng.uniform(0.2, 0.38))]
    piece = np.rot90(piece, rng.integers(4))[:height, :width]
    left = int(rng.integers(width - piece.shape[1] + 1))
    top = int(rng.integers(height - piece.shape[0] + 1))
    part = image[top : top + piece.shape[0], left : left + piece.shape[1]]
    _blend(part, np.ascontiguousarray(piece))


def _capsule(
    tip: NDArray[np.float64], direction: float, radius: float, length: float
) -> NDArray[np.float64]:
    """Corners of a long strip with a round end."""
    angles = direction + np.linspace(0.5 * math.pi, 1.5 * math.pi, 9)
    end = tip + radius * np.column_stack([np.cos(angles), np.sin(angles)])
    along = length * np.array([math.cos(direction), math.sin(direction)])
    return np.vstack([end, end[-1] + along, end[0] + along])


def _draw_finger(
    rng: np.random.Generator,
    image: Image,
    shape: NDArray[np.float64],
    tip: NDArray[np.float64],
    radius: float,
) -> None:
    skin = np.clip(np.array(_SKIN[rng.integers(len(_SKIN))]) + rng.normal(0, 8, 3), 0, 255)
    cv2.fillConvexPoly(image, _fixed(shape), tuple(map(int, skin * 0.7)), cv2.LINE_AA, 4)
    along = shape[-1] - shape[0]
    along /= np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    # The lit part is narrower: what remains of the first shape is the shaded side.
    lit = shape + across * (np.sign((shape - tip) @ across) * -0.2 * radius)[:, None]
    cv2.fillConvexPoly(image, _fixed(lit), tuple(map(int, skin)), cv2.LINE_AA, 4)
    if rng.random() < 0.6:
        nail = tip - along * radius * 0.1
        axes = (max(1, int(0.5 * radius)), max(1, int(0.4 * radius)))
        turn = math.degrees(math.atan2(along[1], along[0]))
        shade = tuple(map(int, np.clip(skin * 1.1 + 15, 0, 255)))
        where = (int(nail[0]), int(nail[1]))
        cv2.ellipse(image, where, axes, turn, 0, 360, shade, -1, cv2.LINE_AA)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points in the fixed-point numbers with 4 fractional bits that OpenCV draws with."""
    rounded: NDArray[np.int32] = np.rint(points * 16).astype(np.int32)
    return rounded
