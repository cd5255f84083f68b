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


class FileHeader(NamedTuple):
    """What a compressed image says about itself, before EXIF turns it upright."""

    is_jpeg: bool
    width: int
    height: int


def read_header(data: NDArray[np.uint8]) -> FileHeader:
    """Reads format and size, going by the content: cameras' format strings are unreliable.

    Args:
        data: The whole file, uint8, 1-D.

    Raises:
        FrameError: `decode` when it is no complete JPEG or PNG, `size` above 100 megapixels.
    """
    raw = data.tobytes()
    if raw.startswith(_JPEG_START):
        header, end = _jpeg_header(raw)
        # OpenCV 4.5 fills a cut-off JPEG with grey and says nothing. Entropy-coded data
        # never contains this marker; some cameras pad the buffer after it.
        complete = raw.rfind(_JPEG_END, end) >= 0
    elif raw.startswith(_PNG_SIGNATURE):
        header = FileHeader(
            False, int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")
        )
        complete = raw.rfind(b"IEND", 24) >= 0
    else:
        raise FrameError("decode", "the compressed image is neither JPEG nor PNG")
    if not complete:
        raise FrameError("decode", f"the compressed image is cut off after {len(raw)} bytes")
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


def _jpeg_header(raw: bytes) -> tuple[FileHeader, int]:
    """Walks the segments to the frame header (ITU-T T.81, annex B) and says where it is."""
    position = 2
    while position + 9 <= len(raw) and raw[position] == 0xFF:
        marker = raw[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(raw[position + 5 : position + 7], "big")
            width = int.from_bytes(raw[position + 7 : position + 9], "big")
            return FileHeader(True, width, height), position
        elif marker in (0xD9, 0xDA):  # the image ends, or its data starts, without a header
            break
        else:
            position += 2 + int.from_bytes(raw[position + 2 : position + 4], "big")
    raise FrameError("decode", "the JPEG has no frame header")
