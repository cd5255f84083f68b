"""Decode JPEG and PNG files to BGR, after checks that bound the memory and time this takes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision import jpeg, png
from efv2_ros.vision.fileheader import MAX_PIXELS, FileHeader
from efv2_ros.vision.frame import FrameError

__all__ = [
    "MAX_PIXELS",
    "MOST_MAX_PIXELS",
    "REDUCTIONS",
    "FileHeader",
    "decode",
    "is_jpeg_or_png",
    "read_header",
]

MOST_MAX_PIXELS = 1_000_000_000
"""Highest value of `max_pixels`; OpenCV decodes no more than 2**30 pixels."""

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
REDUCTIONS = tuple(sorted(_REDUCED, reverse=True))
"""Factors by which a JPEG can be shrunk while it is decoded, the largest first."""


def is_jpeg_or_png(data: NDArray[np.uint8]) -> bool:
    """Return whether a file, uint8, 1-D, has the signature of a JPEG or a PNG."""
    return data[:8].tobytes().startswith((jpeg.START, png.SIGNATURE))


def read_header(data: NDArray[np.uint8], max_pixels: int = MAX_PIXELS) -> FileHeader:
    """Check a file and return its format and size, without decoding it.

    The content decides about the format: cameras' format strings are unreliable. A file that
    passes costs no more memory and time to decode than images of its declared size may.

    Args:
        data: The whole file, uint8, 1-D.
        max_pixels: Largest size that is accepted, in pixels.

    Raises:
        FrameError: fault `decode` if it is not a complete JPEG or PNG or would cost too much;
            `size` if it declares more than `max_pixels`.
    """
    data = np.ascontiguousarray(data)
    start = data[:8].tobytes()
    if start.startswith(jpeg.START):
        return jpeg.read_jpeg(data, max_pixels)
    if start == png.SIGNATURE:
        return png.read_png(data, max_pixels)
    raise FrameError("decode", "the compressed image is neither JPEG nor PNG")


def decode(data: NDArray[np.uint8], header: FileHeader, reduction: int = 1) -> NDArray[np.uint8]:
    """Decode a file to BGR and turn it upright as its EXIF orientation says.

    The EXIF orientation matters for photos; messages of cameras have none. Alpha is dropped.
    Samples of 16 bits are reduced to their high byte.

    Args:
        data: The whole file, uint8, 1-D.
        header: The file's, from `read_header`.
        reduction: Factor by which a JPEG is shrunk while it is decoded, which takes less time: 1,
            2, 4 or 8. Each pixel is the mean of a block of `reduction x reduction` pixels.

    Returns:
        uint8 of shape (height, width, 3), each side `ceil(side / reduction)`.

    Raises:
        FrameError: fault `decode`; the file is damaged.
    """
    if header.png is not None:
        data = png.decodable(np.ascontiguousarray(data), header.png)
    try:
        image: NDArray[Any] | None = cv2.imdecode(data, _REDUCED[reduction])
    except cv2.error as error:
        raise FrameError("decode", f"the compressed image cannot be decoded: {error}") from error
    size = {-(-header.width // reduction), -(-header.height // reduction)}
    if image is None or set(image.shape[:2]) != size:
        raise FrameError("decode", "the compressed image cannot be decoded")
    return image
