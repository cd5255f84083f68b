"""Frames as BGR pictures for display, and text drawn on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.compressed import MAX_PIXELS, decode, read_header
from efv2_ros.vision.frame import Frame, FrameError
from efv2_ros.vision.pixels import COMPRESSED, pixel_format, view

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (255, 255, 255)
_LINES_PER_HEIGHT = 20
"""Lines of text that fill the picture's height; long lines make the text smaller still."""

_LEADING = 1.5
"""Distance of two lines, divided by the height of a capital letter and a descender."""

_SHADE = 0.3
"""Factor for the brightness behind the text: white on at most 77 of 255 contrasts above 9:1."""


class BgrConverter:
    """Converter of frames to BGR pictures for display; frames of one size share their memory.

    YUV is converted as BT.601 limited range, the only one that OpenCV has: the contrast of
    full-range images is a little too high.

    Args:
        allocate: Allocates a picture of a height and width in pixels: uint8 of shape
            (height, width, 3), writable, C-contiguous.
    """

    def __init__(self, allocate: Callable[[int, int], NDArray[np.uint8]]) -> None:
        self._allocate = allocate
        self._picture = np.empty((0, 0, 3), np.uint8)

    def __call__(self, frame: Frame, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Convert a whole frame; compressed photos are turned upright.

        Args:
            frame: The frame.
            max_pixels: Largest size of a compressed image that is accepted, in pixels.

        Returns:
            BGR, uint8 of shape (height, width, 3), valid until the next call.

        Raises:
            FrameError: The frame cannot be read as a picture.
        """
        if frame.encoding in COMPRESSED:
            decoded = decode(frame.data, read_header(frame.data, max_pixels))
            picture = self._memory(*decoded.shape[:2])
            np.copyto(picture, decoded)
            return picture
        pixels = pixel_format(frame)
        rows: NDArray[Any] = view(frame, pixels)
        picture = self._memory(frame.height, frame.width)
        if pixels.to_bgr is None:
            np.copyto(picture, rows)
            return picture
        if pixels.kind == "mono16":
            rows = cv2.extractChannel(rows, 0 if frame.is_bigendian else 1)
        try:
            cv2.cvtColor(rows, pixels.to_bgr, picture)
        except cv2.error as error:
            raise FrameError("decode", f"OpenCV cannot convert the image: {error}") from error
        return picture

    def _memory(self, height: int, width: int) -> NDArray[np.uint8]:
        if self._picture.shape[:2] != (height, width):
            self._picture = self._allocate(height, width)
        return self._picture


def to_bgr(frame: Frame, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Convert a whole frame to a new BGR picture; see `BgrConverter`.

    Raises:
        FrameError: The frame cannot be read as a picture.
    """
    return BgrConverter(lambda height, width: np.empty((height, width, 3), np.uint8))(
        frame, max_pixels
    )


def annotate(bgr: NDArray[np.uint8], lines: Sequence[str]) -> None:
    """Draw lines of text in the top left corner, in place, white on a darkened box.

    The text's size follows the picture's size and shrinks until every line fits. OpenCV's font
    has only ASCII; other characters become `?`.

    Args:
        bgr: The picture, uint8 of shape (height, width, 3), writable, C-contiguous.
        lines: The lines of text.
    """
    if not lines:
        return
    texts = [_printable(line) for line in lines]
    height, width = bgr.shape[:2]
    (_, unit_height), unit_descent = cv2.getTextSize("M", _FONT, 1.0, 1)
    unit_line = (unit_height + unit_descent) * _LEADING
    unit_width = max(cv2.getTextSize(text, _FONT, 1.0, 1)[0][0] for text in texts) + unit_line
    line_height = height / max(_LINES_PER_HEIGHT, len(texts) + 1)
    scale = min(line_height / unit_line, width / unit_width)
    line_height = scale * unit_line
    thickness = max(1, round(scale * 1.5))
    box = bgr[
        : min(height, round(line_height * (len(texts) + 0.5))),
        : min(width, round(scale * unit_width)),
    ]
    cv2.convertScaleAbs(box, box, _SHADE)
    for row, text in enumerate(texts, start=1):
        baseline = (round(line_height / 2), round(line_height * row))
        cv2.putText(bgr, text, baseline, _FONT, scale, _WHITE, thickness, cv2.LINE_AA)


def _printable(line: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in line)
