"""Writer of frames of one size and pixel format into NV12 planes."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.geometry import Axis, Resampler, Window
from efv2_ros.vision.pixels import PIXEL_FORMATS, PixelFormat, chroma_pairs, macropixels
from efv2_ros.vision.planes import Nv12Planes

NEUTRAL = 128
"""U and V of grey."""

_DEMOSAIC_MARGIN = 2
"""Pixels around a window that bilinear demosaicing of the window needs."""

_MAX_GREY_PIXELS = 400_000
"""Up to this many pixels, converting all of them to Y takes less time than resizing three colours
to twice the output's size. Measured on x86-64 with OpenCV 4.5 and 4.11."""

_COLOURS = {
    PIXEL_FORMATS["bgr8"]: (cv2.COLOR_BGR2GRAY, cv2.COLOR_BGR2YCrCb),
    PIXEL_FORMATS["rgb8"]: (cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2YCrCb),
    PIXEL_FORMATS["bgra8"]: (cv2.COLOR_BGRA2GRAY, cv2.COLOR_BGR2YCrCb),
    PIXEL_FORMATS["rgba8"]: (cv2.COLOR_RGBA2GRAY, cv2.COLOR_RGB2YCrCb),
}
"""OpenCV's conversions to Y, and to Y, V, U; the second ignores a fourth channel."""


class PlaneWriter:
    """Writer for one image size and pixel format; geometry and buffers are set up once.

    Not thread-safe: it owns its scratch buffers.

    Args:
        axes: The horizontal and the vertical mapping from the image to the output.
        size: Width and height of the image.
        pixels: Pixel format of the image.
        reduction: Factor by which the decoder shrinks the image; 1 if it does not.
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
        sharing = (reduction * pixels.shared[0], reduction * pixels.shared[1])
        luma = _windows(axes, (reduction, reduction), 1, antialias)
        chroma = _windows(axes, sharing, 2, antialias)
        self._is_luma_first = all(each.mean == 2 for each in luma) and (
            math.prod(each.samples * each.step for each in luma) <= _MAX_GREY_PIXELS
        )
        if pixels.kind == "bayer":
            used = (luma, chroma) if self._is_luma_first else (luma,)
            across, down = (
                Window.covering(windows, _DEMOSAIC_MARGIN, length)
                for windows, length in zip(zip(*used, strict=True), size, strict=True)
            )
            self._part = (down, across)
            luma = (luma[0].within(across), luma[1].within(down))
            chroma = (chroma[0].within(across), chroma[1].within(down))
        self._luma = Resampler(*luma)
        self._chroma = Resampler(*chroma)
        # Scratch that OpenCV allocates on the first frame and reuses from then on.
        self._demosaiced: NDArray[Any] | None = None
        self._grey: NDArray[Any] | None = None
        self._quarter: NDArray[Any] | None = None
        self._yvu: NDArray[Any] | None = None

    def write(
        self, rows: NDArray[np.uint8], planes: Nv12Planes, is_bigendian: bool = False
    ) -> None:
        """Write a frame; Y, U and V keep the frame's range.

        Args:
            rows: The frame's pixels, as `pixels.view` returns them.
            planes: Part of the output that shows the picture.
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
                # Keep the high byte, as libpng and OpenCV do when they reduce 16 bits to 8.
                np.copyto(planes.y, self._luma(rows, 0 if is_bigendian else 1))
                planes.uv.fill(NEUTRAL)
            case "yuv422":
                y, u, v = self._pixels.order
                np.copyto(planes.y, self._luma(rows, y))
                cv2.mixChannels([self._chroma(macropixels(rows))], [planes.uv], [u, 0, v, 1])
            case "yuv420":
                self._write_yuv420(rows, planes)

    def write_planes(self, source: tuple[NDArray[np.uint8], ...], planes: Nv12Planes) -> None:
        """Write the planes Y or Y, U, V of a frame, uint8 of shape (height, width)."""
        np.copyto(planes.y, self._luma(source[0]))
        if len(source) == 1:
            planes.uv.fill(NEUTRAL)
        for index, plane in enumerate(source[1:]):
            cv2.insertChannel(self._chroma(plane), planes.uv, index)

    def _write_colour(
        self, image: NDArray[np.uint8], pixels: PixelFormat, planes: Nv12Planes
    ) -> None:
        to_grey, to_yvu = _COLOURS[pixels]
        quarter: NDArray[Any]
        if self._is_luma_first:
            # Only Y needs the fine samples; U and V have a quarter as many.
            grey: NDArray[Any] = cv2.cvtColor(self._luma.crop(image), to_grey, self._grey)
            np.copyto(planes.y, self._luma.resample(grey))
            self._grey = grey
            quarter = self._chroma(image)
        else:
            small = self._luma(image)
            cv2.cvtColor(small, to_grey, planes.y)
            # U and V are linear in R, G and B: take the means of 2x2 pixels first.
            size = (small.shape[1] // 2, small.shape[0] // 2)
            quarter = cv2.resize(small, size, self._quarter, 0, 0, cv2.INTER_AREA)
            self._quarter = quarter
        self._yvu = cv2.cvtColor(quarter, to_yvu, self._yvu)
        cv2.mixChannels([self._yvu], [planes.uv], [2, 0, 1, 1])

    def _write_bayer(self, raw: NDArray[np.uint8], planes: Nv12Planes) -> None:
        assert self._pixels.to_bgr is not None
        bgr: NDArray[Any] = cv2.cvtColor(raw[self._part], self._pixels.to_bgr, self._demosaiced)
        self._write_colour(bgr, PIXEL_FORMATS["bgr8"], planes)
        self._demosaiced = bgr

    def _write_yuv420(self, rows: NDArray[np.uint8], planes: Nv12Planes) -> None:
        np.copyto(planes.y, self._luma(rows[: rows.shape[0] // 3 * 2]))
        pairs = self._chroma(chroma_pairs(rows))
        if self._pixels.order == (0, 0, 1):
            np.copyto(planes.uv, pairs)
        else:
            cv2.mixChannels([pairs], [planes.uv], [1, 0, 0, 1])


def _windows(
    axes: tuple[Axis, Axis], shared: tuple[int, int], output: int, antialias: bool
) -> tuple[Window, Window]:
    """Compute the horizontal and the vertical window of a plane.

    Args:
        axes: The mapping from the image to the output.
        shared: Pixels of the image across and down that share a sample of the plane.
        output: Output pixels across and down that share a sample: 1 for Y, 2 for U and V.
        antialias: Take means where the picture shrinks.
    """
    x, y = (axis.between_planes(each, output) for axis, each in zip(axes, shared, strict=True))
    return Window.of(x, antialias), Window.of(y, antialias, may_stride=True)
