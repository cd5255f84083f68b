"""Encoder of BGR pictures in the encodings that cameras send.

YUV has the range that cameras usually send and that the classifier's `input_range:=auto` expects:
full for nv12, limited for yuv422_yuy2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.nv12 import Nv12Converter
from efv2_ros.vision.pixels import COMPRESSED


def encode(picture: Frame, encoding: str, width: int = 0, height: int = 0) -> Frame:
    """Encode a picture as a camera would send it, after resizing it if asked; see `resized`.

    Args:
        picture: A `bgr8` frame with unpadded rows; or a compressed file, which is returned as is.
        encoding: A key of `ENCODERS` or `FILE_SUFFIXES`.
        width: New width in pixels, or 0.
        height: New height in pixels, or 0.

    Raises:
        FrameError: fault `size`: the encoding has no image of this size.
    """
    if picture.encoding in COMPRESSED:
        return picture
    image: NDArray[Any] = picture.data.reshape(picture.height, picture.width, 3)
    try:
        if width or height:
            image = resized(image, width, height)
        if encoding in ENCODERS:
            return _frame(picture.header, ENCODERS[encoding](image), encoding)
        written, file = cv2.imencode(FILE_SUFFIXES[encoding], image)
    except cv2.error:
        written = False
    if not written:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise FrameError("size", f"OpenCV cannot make a {encoding} image of {size} pixels")
    return Frame(picture.header, encoding, file.reshape(-1))  # a column in OpenCV 4.5


def resized(image: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Resize (h, w, 3) to `width` and `height` in pixels; 0 keeps the aspect ratio."""
    rows, columns = image.shape[:2]
    size = (
        width or max(1, round(columns * height / rows)),
        height or max(1, round(rows * width / columns)),
    )
    shrinks = size[0] * size[1] < rows * columns
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def to_nv12(image: NDArray[Any]) -> NDArray[Any]:
    """Convert BGR (h, w, 3) to full-range NV12 (h * 3 / 2, w); odd sides lose a pixel.

    Raises:
        FrameError: fault `size`: the image is smaller than 2x2 pixels.
    """
    height, width = (side // 2 * 2 for side in image.shape[:2])
    if not height or not width:
        raise FrameError("size", f"NV12 needs 2x2 pixels, not {image.shape[1]}x{image.shape[0]}")
    even = np.ascontiguousarray(image[:height, :width])
    return _nv12_converter(width, height).convert(_frame(Header(), even, "bgr8"))


def to_yuyv(image: NDArray[Any]) -> NDArray[Any]:
    """Convert BGR (h, w, 3) to limited-range YUYV (h, w, 2); an odd width loses its last column.

    Y = 16 + 219/255 Y' and U, V = 128 + 224/255 (U', V' - 128), with the full-range Y', U', V'
    of JFIF. Values are rounded twice and exact to one step.
    """
    ycrcb = cv2.cvtColor(image[:, : image.shape[1] // 2 * 2], cv2.COLOR_BGR2YCrCb)
    height, width = ycrcb.shape[:2]
    full = np.arange(256)
    luma = np.rint(16 + full * 219 / 255).astype(np.uint8)
    chroma = np.rint(128 + (full - 128) * 224 / 255).astype(np.uint8)
    crcb = cv2.resize(ycrcb[..., 1:], (width // 2, height), interpolation=cv2.INTER_AREA)
    yuyv = np.empty((height, width, 2), np.uint8)
    yuyv[..., 0] = luma[ycrcb[..., 0]]
    yuyv[:, 0::2, 1] = chroma[crcb[..., 1]]
    yuyv[:, 1::2, 1] = chroma[crcb[..., 0]]
    return yuyv


ENCODERS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "bgr8": lambda image: image,
    "rgb8": lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
    "mono8": lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    "nv12": to_nv12,
    "yuv422_yuy2": to_yuyv,
}
"""Functions from BGR (h, w, 3) to each encoding of sensor_msgs/Image."""

FILE_SUFFIXES = {"jpeg": ".jpg", "png": ".png"}
"""Encodings of sensor_msgs/CompressedImage, and the file suffix that OpenCV uses for each."""


@functools.lru_cache(maxsize=8)
def _nv12_converter(width: int, height: int) -> Nv12Converter:
    return Nv12Converter(width, height, fit="stretch", nv12_range="full")


def _frame(header: Header, pixels: NDArray[Any], encoding: str) -> Frame:
    """Make a frame of unpadded rows: (height, width), (height, width, channels), or NV12."""
    rows, width = pixels.shape[:2]
    return Frame(
        header=header,
        encoding=encoding,
        data=pixels.reshape(-1),
        height=rows * 2 // 3 if encoding == "nv12" else rows,
        width=width,
        step=pixels[0].nbytes,
    )
