"""What a cheap camera in a hand does to a picture: blur, light, colour casts, noise, JPEG."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.cards.backgrounds import Image

_GAMMA = 2.2


def blur(rng: np.random.Generator, image: Image, pixels: float, difficulty: float) -> Image:
    """Blur by defocus and by motion, in proportion to the object: it has to stay recognisable.

    Args:
        rng: Source of all randomness.
        image: BGR, uint8.
        pixels: The object's size in pixels.
        difficulty: Scales how strong and how frequent blur is.
    """
    reach = min(pixels, 0.7 * min(image.shape[:2]))
    if rng.random() < 0.45 * difficulty:
        image = _defocused(image, 0.03 * difficulty * reach * rng.random())
    if rng.random() < 0.35 * difficulty:
        length = 0.12 * difficulty * reach * rng.random()
        image = _moved(image, length, rng.uniform(0, math.tau))
    return image


def expose(rng: np.random.Generator, image: Image, difficulty: float) -> Image:
    """Apply light and sensor: exposure, colour cast, uneven light, veil, shot and read noise."""
    height, width = image.shape[:2]
    stops = rng.normal(0, 0.3 * difficulty)
    kind = rng.random()
    if kind < 0.25:  # low light
        stops -= rng.uniform(0.6, 2.6) * difficulty
    elif kind < 0.42:  # overexposed
        stops += rng.uniform(0.4, 1.6) * difficulty
    gains = 2 ** ((stops + rng.normal(0, 0.22 * difficulty, 3)) / _GAMMA)
    light = _light(rng, width / height, difficulty)[..., None] * gains.astype(np.float32)
    factors = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)
    exposed = cv2.multiply(image, factors, dtype=cv2.CV_8U)
    if rng.random() < 0.25 * difficulty:  # stray light
        veil = min(0.7, rng.uniform(0.1, 0.4) * difficulty)
        exposed = cv2.convertScaleAbs(exposed, alpha=1 - veil, beta=veil * rng.uniform(90, 220))
    if rng.random() < 0.8:
        shot = 10 ** rng.uniform(-4, -2.1) * difficulty**2
        exposed = _noisy(rng, exposed, shot)
    return exposed


def jpeg(rng: np.random.Generator, image: Image, difficulty: float) -> bytes:
    """Compress as JPEG of quality 30 to 95; easier sets are compressed less."""
    quality = int(rng.integers(max(10, round(95 - 65 * difficulty)), 96))
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def _defocused(image: Image, sigma: float) -> Image:
    if sigma < 0.3:
        return image
    if sigma < 2:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    # Two box filters: as fast for a large blur as for a small one.
    side = 2 * round((math.sqrt(6 * sigma**2 + 1) - 1) / 2) + 1
    return cv2.blur(cv2.blur(image, (side, side)), (side, side))


def _moved(image: Image, length: float, direction: float) -> Image:
    """Blur along a line: the mean of 8 copies, of which each step of three doubles the number."""
    if length < 1:
        return image
    height, width = image.shape[:2]
    for part in (1 / 2, 1 / 4, 1 / 8):
        x, y = length * part * math.cos(direction), length * part * math.sin(direction)
        shift = np.array([[1, 0, x], [0, 1, y]])
        copy = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        image = cv2.addWeighted(image, 0.5, copy, 0.5, 0)
    return image


def _light(rng: np.random.Generator, aspect: float, difficulty: float) -> NDArray[np.float32]:
    """Uneven light as a coarse map of factors: vignetting, a slope, and sometimes a shadow."""
    y, x = np.mgrid[-1:1:24j, -1:1:24j].astype(np.float32)
    distance = (np.square(x * aspect) + np.square(y)) / (aspect**2 + 1)
    light = 1 - min(0.75, 0.55 * difficulty * rng.random()) * distance
    direction = rng.uniform(0, math.tau)
    slope = x * math.cos(direction) + y * math.sin(direction)
    light *= 1 + min(0.6, 0.35 * difficulty) * rng.random() * slope / math.sqrt(2)
    if rng.random() < 0.2 * difficulty:  # the edge of a shadow across the picture
        across = math.cos(direction * 3) * x + math.sin(direction * 3) * y
        # As wide as a cell of the map: a sharp edge would show as stairs.
        edge = np.clip(8 * (across - rng.uniform(-0.6, 0.6)) + 0.5, 0, 1)
        light *= 1 - min(0.6, 0.4 * difficulty) * edge
    result: NDArray[np.float32] = light.astype(np.float32)
    return result


def _noisy(rng: np.random.Generator, image: Image, shot: float) -> Image:
    """Add noise whose variance, in linear light of 0 to 1, is `shot` times the light, and more.

    What is added to it is read noise. Means of 4 or 9 random bytes are nearly Gaussian, cheap, and
    alike in neighbouring pixels, as noise is once a colour filter's samples were interpolated.
    """
    linear = np.maximum((np.arange(256) / 255) ** _GAMMA, 0.004)
    slope = 255 / _GAMMA * linear ** (1 / _GAMMA - 1)
    sigma = slope * np.sqrt(shot * linear + 0.02 * shot)
    reach = int(rng.integers(2, 4))
    grain: Image = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    middle: Any = (127.5,) * 3  # OpenCV's stubs know of no scalars
    grain = cv2.subtract(cv2.blur(grain, (reach, reach)), middle, dtype=cv2.CV_16S)
    deviation = math.sqrt(256**2 / 12) / reach
    strength = cv2.LUT(image, np.rint(sigma * 16).astype(np.int16))
    noise = cv2.multiply(grain, strength, scale=1 / 16 / deviation)
    return cv2.add(image, noise, dtype=cv2.CV_8U)
