"""Pictures for the page: frames as JPEG files that are no wider than asked for."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.pictures.annotate import BgrConverter
from efv2_ros.vision.compressed import REDUCTIONS, decode, read_header
from efv2_ros.vision.frame import Frame, FrameError

_QUALITY = 80
_MOST_BYTES = 256 << 10
"""Largest file of a camera that is passed on as it is."""


class JpegEncoder:
    """Makes JPEG files of frames; those of one size share their memory. Not thread-safe.

    Args:
        width: Largest width of a picture, in pixels.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._to_bgr = BgrConverter(lambda height, width: np.empty((height, width, 3), np.uint8))

    def __call__(self, frame: Frame) -> bytes:
        """Make a JPEG file, or pass on the camera's own if it is small enough.

        Raises:
            FrameError: The frame cannot be read as a picture.
        """
        if frame.encoding == "jpeg":
            header = read_header(frame.data)
            is_small = header.width <= self._width and frame.data.size <= _MOST_BYTES
            if header.is_jpeg and is_small:
                return frame.data.tobytes()
            # While it is decoded, a JPEG is shrunk at little cost.
            reduction = next(
                each for each in REDUCTIONS if each == 1 or header.width >= each * self._width
            )
            return self._encode(decode(frame.data, header, reduction))
        return self._encode(self._to_bgr(frame))

    def _encode(self, bgr: NDArray[np.uint8]) -> bytes:
        height, width = bgr.shape[:2]
        picture: NDArray[Any] = bgr
        try:
            if width > self._width:
                size = (self._width, max(1, round(height * self._width / width)))
                picture = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
            written, file = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        except cv2.error as error:
            raise FrameError("size", f"OpenCV cannot encode the picture: {error}") from error
        if not written:
            raise FrameError("size", f"OpenCV cannot make a JPEG of {width}x{height} pixels")
        return file.tobytes()
