"""Where the object is in the frame: size, rotation, tilt and position."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIZES = (0.1, 1.0)
"""Limits of an object's size, as a share of the frame's short side."""

MIN_VISIBLE = 0.6
"""Smallest part of the object's square that is inside the frame and not covered."""

MAX_TILT = 55.0
"""Largest angle between the object's plane and the image plane, in degrees."""

_SQUARE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


class Placement(NamedTuple):
    """How the object's plane lies in the frame.

    Attributes:
        matrix: Homography from the object's plane, where the object fills the square from -0.5 to
            0.5 and y points down, to pixels; float64, of shape (3, 3).
        corners: The square's corners in pixels, float64, of shape (4, 2).
        share: Square root of the area of the square in the frame, as a share of the frame's short
            side.
        tilt: Angle between the object's plane and the image plane, in degrees.
        visible: Part of the square that is inside the frame, 0 to 1.
    """

    matrix: NDArray[np.float64]
    corners: NDArray[np.float64]
    share: float
    tilt: float
    visible: float


def place(rng: np.random.Generator, size: tuple[int, int], difficulty: float) -> Placement:
    """Draw a placement.

    The size is log-uniform between `SIZES`; easier sets leave out the small ones.

    Args:
        rng: Source of all randomness.
        size: Width and height of the frame in pixels.
        difficulty: Scales rotation, tilt, the range of sizes, and how often the frame cuts.
    """
    short = min(size)
    smallest = max(SIZES[0], 0.45 * 0.42**difficulty)
    share = math.exp(rng.uniform(math.log(smallest), math.log(SIZES[1])))
    tilt = min(MAX_TILT, MAX_TILT * difficulty) * rng.random()
    matrix = _turned(
        _angle(rng, difficulty), math.radians(tilt), rng.uniform(0, math.tau), rng.uniform(2, 5)
    )
    corners = project(matrix, _SQUARE)
    scale = share * short / math.sqrt(cv2.contourArea(corners.astype(np.float32)))
    # The tilted square's centre is not the origin: perspective enlarges the near half.
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    half = scale * (corners.max(axis=0) - corners.min(axis=0)) / 2
    frame = np.asarray(size, np.float64)
    is_cut = rng.random() < 0.3 * difficulty
    # A cut object's centre comes nearer to the edge.
    room = np.maximum(frame / 2 - half * (0.3 if is_cut else 1.0), 0.02 * short)
    for attempt in range(9):
        offset = frame / 2 + room * rng.uniform(-1, 1, 2) * (attempt < 8)
        moved = np.array(
            [
                [scale, 0, offset[0] - scale * middle[0]],
                [0, scale, offset[1] - scale * middle[1]],
                [0, 0, 1],
            ]
        )
        placed = project(moved @ matrix, _SQUARE)
        visible = overlap(placed, _frame(size)) / (share * short) ** 2
        if visible >= MIN_VISIBLE:
            break
    return Placement(moved @ matrix, placed, share, tilt, min(1.0, visible))


def project(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points of shape (n, 2) by a homography of shape (3, 3)."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    result: NDArray[np.float64] = mapped[:, :2] / mapped[:, 2:]
    return result


def overlap(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the area that two convex polygons of shape (n, 2) share."""
    area, _ = cv2.intersectConvexConvex(first.astype(np.float32), second.astype(np.float32))
    return float(area)


def covered(placement: Placement, shape: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Return the part of the object's square that a convex shape covers inside the frame.

    Args:
        placement: The object's.
        shape: Corners in pixels, of shape (n, 2).
        size: Width and height of the frame.
    """
    area, inside = cv2.intersectConvexConvex(
        placement.corners.astype(np.float32), _frame(size).astype(np.float32)
    )
    if area <= 0:
        return 0.0
    return overlap(inside.reshape(-1, 2), shape) / (placement.share * min(size)) ** 2


def _frame(size: tuple[int, int]) -> NDArray[np.float64]:
    width, height = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _angle(rng: np.random.Generator, difficulty: float) -> float:
    """Draw a rotation in the image plane, in radians; seldom upside down."""
    if rng.random() < 0.1 * difficulty:
        return rng.uniform(0, math.tau)
    return math.radians(30 * min(1.5, difficulty)) * rng.uniform(-1, 1)


def _turned(angle: float, tilt: float, axis: float, distance: float) -> NDArray[np.float64]:
    """Homography of a plane that is turned by `angle`, then tilted about an axis in the image.

    The camera is `distance` widths of the object away. All angles are in radians.
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    x, y = math.cos(axis), math.sin(axis)
    rise, fall = math.sin(tilt), 1 - math.cos(tilt)
    # Rodrigues' formula; of the plane's third axis only the distance is needed.
    tilted = np.array(
        [
            [1 - fall * y * y, fall * x * y, 0],
            [fall * x * y, 1 - fall * x * x, 0],
            [-rise * y / distance, rise * x / distance, 1],
        ]
    )
    homography: NDArray[np.float64] = tilted @ turn
    return homography
