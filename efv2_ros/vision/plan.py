"""How frames of one size and layout are written into NV12 planes, set up once and then reused."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.planes import Nv12Planes
from efv2_ros.vision.geometry import Axis, Resampler, Window
from efv2_ros.vision.pixels import FORMATS, PixelFormat, chroma_pairs, macropixels

NEUTRAL = 128
"""U and V of grey."""

_DEMOSAIC_MARGIN = 2
"""Pixels beyond a window that bilinear demosaicing of the window's own pixels looks at."""

_COLOUR_CODES = {
    FORMATS["bgr8"]: (cv2.COLOR_BGR2GRAY, cv2.COLOR_BGR2YCrCb),
    FORMATS["rgb8"]: (cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2YCrCb),
    FORMATS["bgra8"]: (cv2.COLOR_BGRA2GRAY, cv2.COLOR_BGR2YCrCb),
    FORMATS["rgba8"]: (cv2.COLOR_RGBA2GRAY, cv2.COLOR_RGB2YCrCb),
}
"""OpenCV's conversions to Y, and to Y, Cr, Cb with any fourth channel ignored."""


class Plan:
    """Everything about one image size and layout that stays the same from frame to frame.

    Args:
        axes: The horizontal and the vertical mapping from the image to the output.
        size: Width and height of the image.
        pixels: Layout of its pixels.
        reduction: Factor by which the image has been shrunk since its size was told.
        antialias: Take means where the picture shrinks.
    """

    def __init__(
        self,
        axes: tuple[Axis, Axis],
        size: tuple[int, int],
        pixels: PixelFormat,
        reduction: int,
        antialias: bool,
    ) -> None:
        self.x, self.y = axes
        self._pixels = pixels
        self._part = (slice(None), slice(None))
        x, y = (Window.of(axis.between_planes(reduction, 1), antialias) for axis in axes)
        if pixels.kind == "bayer":
            self._part = (
                y.widened(_DEMOSAIC_MARGIN, size[1]),
                x.widened(_DEMOSAIC_MARGIN, size[0]),
            )
            x, y = x.within(self._part[1]), y.within(self._part[0])
        self._luma = Resampler(x, y)
        self._chroma = Resampler(
            *(
                Window.of(axis.between_planes(reduction * shared, 2), antialias)
                for axis, shared in zip(axes, pixels.shared, strict=True)
            )
        )
        # Scratch that OpenCV allocates on the first frame and reuses from then on.
        self._demosaiced: NDArray[Any] | None = None
        self._half: NDArray[Any] | None = None
        self._ycrcb: NDArray[Any] | None = None

    def write(
        self, rows: NDArray[np.uint8], planes: Nv12Planes, is_bigendian: bool = False
    ) -> None:
        """Writes a frame's rows, in the frame's own range of Y, U and V.

        Args:
            rows: What `pixels.view` makes of the frame.
            planes: The picture's part of the output.
            is_bigendian: Byte order of 16-bit samples.
        """
        match self._pixels.kind:
            case "colour":
                self._write_colour(rows, self._pixels, planes)
            case "bayer":
                self._write_bayer(rows, planes)
            case "mono":
                self.write_planes((rows,), planes)
            case "mono16":
                # The high byte, as libpng's and so OpenCV's 16-to-8-bit conversion keeps.
                np.copyto(planes.y, self._luma(rows, 0 if is_bigendian else 1))
                planes.uv.fill(NEUTRAL)
            case "yuv422":
                y, u, v = self._pixels.order
                np.copyto(planes.y, self._luma(rows, y))
                cv2.mixChannels([self._chroma(macropixels(rows))], [planes.uv], [u, 0, v, 1])
            case "yuv420":
                self._write_yuv420(rows, planes)

    def write_planes(self, source: tuple[NDArray[np.uint8], ...], planes: Nv12Planes) -> None:
        """Writes Y and, unless the frame is grey, U and V: planes of shape (height, width)."""
        np.copyto(planes.y, self._luma(source[0]))
        if len(source) == 1:
            planes.uv.fill(NEUTRAL)
        for index, plane in enumerate(source[1:]):
            cv2.insertChannel(self._chroma(plane), planes.uv, index)

    def _write_colour(
        self, image: NDArray[np.uint8], pixels: PixelFormat, planes: Nv12Planes
    ) -> None:
        to_gray, to_ycrcb = _COLOUR_CODES[pixels]
        small = self._luma(image)
        cv2.cvtColor(small, to_gray, planes.y)
        # Chroma is linear in R, G, B: averaging first converts a quarter of the pixels. OpenCV's
        # YCrCb factors are 0.564 and 0.713, 1/1.772 and 1/1.402 to three places.
        height, width = planes.uv.shape[:2]
        half: NDArray[Any] = cv2.resize(small, (width, height), self._half, 0, 0, cv2.INTER_AREA)
        ycrcb: NDArray[Any] = cv2.cvtColor(half, to_ycrcb, self._ycrcb)
        cv2.mixChannels([ycrcb], [planes.uv], [2, 0, 1, 1])
        self._half, self._ycrcb = half, ycrcb

    def _write_bayer(self, raw: NDArray[np.uint8], planes: Nv12Planes) -> None:
        assert self._pixels.to_bgr is not None
        bgr: NDArray[Any] = cv2.cvtColor(raw[self._part], self._pixels.to_bgr, self._demosaiced)
        self._write_colour(bgr, FORMATS["bgr8"], planes)
        self._demosaiced = bgr

    def _write_yuv420(self, rows: NDArray[np.uint8], planes: Nv12Planes) -> None:
        np.copyto(planes.y, self._luma(rows[: rows.shape[0] // 3 * 2]))
        pairs = self._chroma(chroma_pairs(rows))
        if self._pixels.order == (0, 0, 1):
            np.copyto(planes.uv, pairs)
        else:
            cv2.mixChannels([pairs], [planes.uv], [1, 0, 0, 1])
