"""JPEG and PNG files to BGR, with the declared size checked before a byte is decoded."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.frame import FrameError

_MAX_PIXELS = 100_000_000
"""300 MB once decoded; larger than any camera, and a bound on what a lying header can cost."""

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
REDUCTIONS = tuple(sorted(_REDUCED, reverse=True))
"""Factors by which a JPEG can be shrunk while it is decoded, largest first."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"

_CHUNK = 4096
"""Bytes copied at once in the search for a mark."""


class FileHeader(NamedTuple):
    """What a compressed image says about itself, before EXIF turns it upright.

    Attributes:
        is_jpeg: It is a JPEG; else a PNG.
        width: Columns, in pixels.
        height: Rows, in pixels.
        may_be_turned: It is a JPEG with an APP1 segment, where EXIF says which side is up.
    """

    is_jpeg: bool
    width: int
    height: int
    may_be_turned: bool = False


def is_jpeg_or_png(data: NDArray[np.uint8]) -> bool:
    """Whether a file, uint8, 1-D, begins as one of the two does."""
    return data[:8].tobytes().startswith((_JPEG_START, _PNG_SIGNATURE))


def read_header(data: NDArray[np.uint8]) -> FileHeader:
    """Reads format and size, going by the content: cameras' format strings are unreliable.

    Args:
        data: The whole file, uint8, 1-D.

    Raises:
        FrameError: `decode` when it is no complete JPEG or PNG, `size` above 100 megapixels.
    """
    start = data[:24].tobytes()
    if start.startswith(_JPEG_START):
        header, end = _jpeg_header(data)
        # OpenCV 4.5 fills a cut-off JPEG with grey and says nothing. Entropy-coded data
        # never contains this marker; some cameras pad the buffer after it.
        complete = _contains(data, _JPEG_END, end)
    elif start.startswith(_PNG_SIGNATURE):
        header = FileHeader(
            False, int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
        )
        complete = _contains(data, b"IEND", 24)
    else:
        raise FrameError("decode", "the compressed image is neither JPEG nor PNG")
    if not complete:
        raise FrameError("decode", f"the compressed image is cut off after {data.size} bytes")
    if header.width * header.height > _MAX_PIXELS:
        raise FrameError(
            "size",
            f"the compressed image declares {header.width}x{header.height} pixels, "
            f"more than {_MAX_PIXELS // 1_000_000} megapixels",
        )
    return header


def decode(data: NDArray[np.uint8], header: FileHeader, reduction: int = 1) -> NDArray[np.uint8]:
    """Decodes to BGR, turned upright as EXIF says.

    Cameras' messages carry no EXIF; photos do, and a classifier wants them upright. Alpha is
    dropped, of 16-bit samples the high byte is kept.

    Args:
        data: The whole file, uint8, 1-D.
        header: What `read_header` found in it.
        reduction: 1, 2, 4 or 8: shrink a JPEG by this factor, at less than the full cost. A
            reduced pixel is the mean of a `reduction x reduction` block.

    Returns:
        uint8 of shape (height, width, 3), each side `ceil(side / reduction)`.

    Raises:
        FrameError: `decode`.
    """
    try:
        image: NDArray[Any] | None = cv2.imdecode(data, _REDUCED[reduction])
    except cv2.error as error:
        raise FrameError("decode", f"the compressed image cannot be decoded: {error}") from error
    size = {-(-header.width // reduction), -(-header.height // reduction)}
    if image is None or set(image.shape[:2]) != size:
        raise FrameError("decode", "the compressed image cannot be decoded")
    return image


def _jpeg_header(data: NDArray[np.uint8]) -> tuple[FileHeader, int]:
    """Walks the segments up to the picture's data (ITU-T T.81, annex B) and says where that is."""
    size: tuple[int, int] | None = None
    may_be_turned = False
    position = 2
    while len(segment := data[position : position + 9].tobytes()) == 9 and segment[0] == 0xFF:
        marker = segment[1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in (0xD9, 0xDA):  # the image ends, or its data starts
            break
        if marker == 0xE1:
            may_be_turned = True
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big")
        position += 2 + int.from_bytes(segment[2:4], "big")
    if size is None:
        raise FrameError("decode", "the JPEG has no frame header")
    return FileHeader(True, *size, may_be_turned), position


def _contains(data: NDArray[np.uint8], mark: bytes, start: int) -> bool:
    """Whether `mark` occurs from `start` on; looks from the end, where it should be."""
    stop = data.size
    while stop > start:
        begin = max(start, stop - _CHUNK)
        if mark in data[begin : stop + len(mark) - 1].tobytes():
            return True
        stop = begin
    return False
