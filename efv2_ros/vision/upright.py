"""The size of a frame's picture, upright as a decoder turns it, without decoding it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.compressed import MAX_PIXELS, FileHeader, read_header
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.pixels import COMPRESSED

_EXIF = b"Exif\0\0"
_APP1, _SOS = 0xE1, 0xDA
_ORIENTATION, _SHORT = 0x0112, 3
"""Tag and type of EXIF's orientation (EXIF 2.3, 4.6.4)."""

_FIRST_TURNED = 5
"""The first orientation that exchanges rows and columns; 8 is the last."""

_MAX_ENTRIES = 100
"""Entries that are read; cameras write 10 to 30."""


def picture_size(frame: Frame, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Find the width and the height of a frame's picture, in pixels.

    Args:
        frame: The frame.
        max_pixels: Largest size of a compressed image that is accepted, in pixels.

    Raises:
        FrameError: As `read_header`, if the frame is a file.
    """
    if frame.encoding not in COMPRESSED:
        return frame.width, frame.height
    data = np.ascontiguousarray(frame.data)
    header = read_header(data, max_pixels)
    if _FIRST_TURNED <= _orientation(data, header) <= 8:
        return header.height, header.width
    return header.width, header.height


def _orientation(data: NDArray[np.uint8], header: FileHeader) -> int:
    """Return EXIF's orientation of a file that `read_header` has passed; 1 without one."""
    file = data.data
    if header.png is not None:
        for start, end in (*header.png.before, *header.png.after):
            if bytes(file[start + 4 : start + 8]) == b"eXIf":
                return _orientation_of(file[start + 8 : end - 4])
        return 1
    if header.may_be_turned:
        position = 2
        while position + 4 < len(file) and file[position + 1] != _SOS:
            end = position + 2 + int.from_bytes(file[position + 2 : position + 4], "big")
            if file[position + 1] == _APP1:  # EXIF has the first one; OpenCV reads no other
                is_exif = bytes(file[position + 4 : position + 10]) == _EXIF
                return _orientation_of(file[position + 10 : end]) if is_exif else 1
            position = end
    return 1


def _orientation_of(tiff: memoryview) -> int:
    """Read the orientation in the first directory of EXIF data (TIFF 6.0, section 2)."""
    order = "little" if bytes(tiff[:2]) == b"II" else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(tiff[start : start + size], order)  # type: ignore[arg-type]

    directory = number(4, 4)
    for entry in range(min(number(directory, 2), _MAX_ENTRIES)):
        start = directory + 2 + 12 * entry
        if (number(start, 2), number(start + 2, 2)) == (_ORIENTATION, _SHORT):
            return number(start + 8, 2)
    return 1
