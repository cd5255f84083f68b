"""How frames of one size and layout are written into NV12 planes, set up once and then reused."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.geometry import Axis, Resampler, Window
from efv2_ros.vision.pixels import FORMATS, PixelFormat, chroma_pairs, macropixels
from efv2_ros.vision.planes import Nv12Planes

NEUTRAL = 128
"""U and V of grey."""

_DEMOSAIC_MARGIN = 2
"""Pixels beyond a window that bilinear demosaicing of the window's own pixels looks at."""

_COLOURS = {
    FORMATS["bgr8"]: (cv2.COLOR_BGR2GRAY, False),
    FORMATS["rgb8"]: (cv2.COLOR_RGB2GRAY, True),
    FORMATS["bgra8"]: (cv2.COLOR_BGRA2GRAY, False),
    FORMATS["rgba8"]: (cv2.COLOR_RGBA2GRAY, True),
}
"""OpenCV's conversion to Y, and whether R comes before B."""

_U_GAIN, _V_GAIN = 1 / 1.772, 1 / 1.402
"""Of B - Y and of R - Y: JFIF 1.02."""


class _ColourScratch:
    """Planes of B and R, and those of half the size with Y's: memory that is soon used again.

    Attributes:
        ends: All rows of B, then of R: uint8, shape (2 * height, width).
        b: Its first part.
        r: Its second part.
        half_ends: The same of half the size.
        half_b: Its first part.
        half_r: Its second part.
        half_y: Y of half the size.
        alpha: What is split off and not used.
    """

    def __init__(self, width: int, height: int) -> None:
        self.ends = np.empty((2 * height, width), np.uint8)
        self.b, self.r = self.ends.reshape(2, height, width)
        self.half_ends = np.empty((height, width // 2), np.uint8)
        self.half_b, self.half_r = self.half_ends.reshape(2, height // 2, width // 2)
        self.half_y = np.empty((height // 2, width // 2), np.uint8)
        self.alpha = np.empty((height, width), np.uint8)


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
        self._colour = _ColourScratch(self.x.samples, self.y.samples)

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
        to_gray, is_rgb = _COLOURS[pixels]
        small, scratch = self._luma(image), self._colour
        first, last = (scratch.r, scratch.b) if is_rgb else (scratch.b, scratch.r)
        # G goes where Y will be: every plane less is one less to bring into the cache.
        cv2.split(small, [first, planes.y, last, scratch.alpha][: small.shape[2]])
        cv2.cvtColor(small, to_gray, planes.y)
        # Chroma is linear in B, R and Y: the means of 2x2 pixels first.
        u, v, y = scratch.half_b, scratch.half_r, scratch.half_y
        cv2.resize(scratch.ends, scratch.half_ends.shape[::-1], scratch.half_ends, 0, 0,
                   cv2.INTER_AREA)  # fmt: skip
        cv2.resize(planes.y, y.shape[::-1], y, 0, 0, cv2.INTER_AREA)
        cv2.addWeighted(u, _U_GAIN, y, -_U_GAIN, NEUTRAL, u)
        cv2.addWeighted(v, _V_GAIN, y, -_V_GAIN, NEUTRAL, v)
        cv2.merge((u, v), planes.uv)

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
