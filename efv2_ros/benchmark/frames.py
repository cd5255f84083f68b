"""Synthetic frames for benchmarks: smooth with some noise, so JPEGs are as large as photos."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.frame import Frame, Header
from efv2_ros.vision.pixels import PIXEL_FORMATS


def picture(encoding: str, width: int, height: int) -> Frame:
    """Return a deterministic frame of a raw encoding, with unpadded rows, or of `jpeg`."""
    header = Header(frame_id="camera")
    if encoding == "jpeg":
        file = cv2.imencode(".jpg", _smooth(height, width, 3))[1]
        return Frame(header, encoding, np.asarray(file, np.uint8).reshape(-1))
    pixels = PIXEL_FORMATS[encoding]
    rows = height * 3 // 2 if pixels.kind == "yuv420" else height
    data = _smooth(rows, width, pixels.channels).reshape(-1)
    return Frame(header, encoding, data, height, width, width * pixels.channels)


def _smooth(rows: int, columns: int, channels: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 240, (rows // 32 + 2, columns // 32 + 2, channels), np.uint8)
    fine = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    noise = random.integers(0, 12, (rows, columns, channels), np.uint8)
    return np.asarray(cv2.add(fine.reshape(noise.shape), noise), np.uint8)
