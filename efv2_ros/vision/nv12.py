"""Any frame to the model's NV12 input: resize first, convert the small image.

NV12 is a full-resolution Y plane followed by one plane of interleaved U, V at half the resolution.
The colours are those of BT.601, R, G, B in 0..255 (JFIF 1.02):

    Y = 0.299 R + 0.587 G + 0.114 B,    U = (B - Y) / 1.772 + 128,    V = (R - Y) / 1.402 + 128

in full range, averaged over 2x2 pixels for U and V. Limited range squeezes Y to 16..235 and U, V
to 16..240. The BPU's models want full range; OpenCV's own conversion to NV12's sibling I420 makes
limited range with the chroma of one pixel in four, and is not used.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.planes import Nv12Planes
from efv2_ros.vision.compressed import REDUCTIONS, FileHeader, decode, read_header
from efv2_ros.vision.frame import Frame, FrameError
from efv2_ros.vision.geometry import Axis, Fit, Resampler, Roi, Window, fit_axes
from efv2_ros.vision.pixels import (
    COMPRESSED,
    FORMATS,
    PixelFormat,
    chroma_pairs,
    macropixels,
    pixel_format,
    view,
)

__all__ = ["Fit", "InputRange", "Nv12Converter", "Range", "Roi", "check"]

Range = Literal["full", "limited"]
"""Y in 0..255, or in 16..235."""

InputRange = Literal["auto", "full", "limited"]
"""Range of a camera's own YUV; `auto` goes by the encoding."""

_PADDING: dict[Range, int] = {"full": 127, "limited": 125}
"""Y of the letterbox's grey, RGB 127: 16 + 127 * 219 / 255 = 125.07 in limited range."""

_NEUTRAL = 128

_MAX_PLANS = 8
"""Image sizes remembered at once; a camera has one."""

_DEMOSAIC_MARGIN = 2
"""Pixels beyond a window that bilinear demosaicing of the window's own pixels looks at."""

_COLOUR_CODES = {
    FORMATS["bgr8"]: (cv2.COLOR_BGR2GRAY, cv2.COLOR_BGR2YCrCb),
    FORMATS["rgb8"]: (cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2YCrCb),
    FORMATS["bgra8"]: (cv2.COLOR_BGRA2GRAY, cv2.COLOR_BGR2YCrCb),
    FORMATS["rgba8"]: (cv2.COLOR_RGBA2GRAY, cv2.COLOR_RGB2YCrCb),
}
"""OpenCV's conversions to Y, and to Y, Cr, Cb with any fourth channel ignored."""


def check(frame: Frame) -> None:
    """Checks what can be checked without touching the pixels, in microseconds.

    Raises:
        FrameError: As `Nv12Converter.convert`, except for `roi` and files that look right but
            cannot be decoded.
    """
    if frame.encoding in COMPRESSED:
        read_header(frame.data)
    else:
        view(frame, pixel_format(frame))


class _Plan:
    """Everything about one image size and layout that stays the same from frame to frame."""

    def __init__(
        self,
        axes: tuple[Axis, Axis],
        size: tuple[int, int],
        pixels: PixelFormat,
        reduction: int,
    ) -> None:
        self.x, self.y = axes
        self.part = (slice(None), slice(None))
        windows = _windows(axes, (reduction, reduction), 1)
        if pixels.kind == "bayer":
            self.part = (
                windows[1].widened(_DEMOSAIC_MARGIN, size[1]),
                windows[0].widened(_DEMOSAIC_MARGIN, size[0]),
            )
            windows = (windows[0].within(self.part[1]), windows[1].within(self.part[0]))
        self.luma = Resampler(*windows)
        self.chroma: Resampler | None = None
        if pixels.kind in ("yuv420", "yuv422"):
            divisor = (2, 2 if pixels.kind == "yuv420" else 1)
            self.chroma = Resampler(*_windows(axes, divisor, 2))
        # Scratch that OpenCV allocates on the first frame and reuses from then on.
        self.demosaiced: NDArray[Any] | None = None
        self.half: NDArray[Any] | None = None
        self.ycrcb: NDArray[Any] | None = None


class Nv12Converter:
    """Turns frames of any supported encoding and size into NV12 of one size.

    The picture is sampled bilinearly, with pixel centres aligned as everywhere (OpenCV, PIL,
    torch). YUV sources keep their own samples: chroma, taken to lie in the middle of the pixels
    that share it, is sampled once per output chroma sample. It may be off by up to half a sample
    of its own where a crop starts between two of them; luma and RGB are exact to 1/30 of a source
    pixel.

    Not thread-safe: use one for each worker. Memory and geometry are set up on the first frame of
    a size and reused.

    Args:
        width: Output width, even.
        height: Output height, even.
        fit: How a picture fills the output.
        crop_pct: Share of the resized picture that `fit="crop"` keeps, in (0, 1].
        roi: Part of each image to use, as if it were all there is. A compressed photo's is in the
            pixels of the upright picture.
        nv12_range: What the model was compiled for.
        input_range: Range of YUV frames. `auto` takes nv12 and nv21 to be in the model's range
            already, so that they pass through, as D-Robotics' own nodes do, and the rest to be
            limited, V4L2's default for YCbCr.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        width: int = 224,
        height: int = 224,
        *,
        fit: Fit = "crop",
        crop_pct: float = 0.95,
        roi: Roi | None = None,
        nv12_range: Range = "full",
        input_range: InputRange = "auto",
    ) -> None:
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"NV12 needs an even width and height, got {width}x{height}")
        if not 0 < crop_pct <= 1:
            raise ValueError(f"crop_pct must be above 0 and at most 1, got {crop_pct}")
        if roi is not None and (min(roi.x, roi.y) < 0 or min(roi.width, roi.height) < 1):
            raise ValueError(f"region of interest {tuple(roi)} is empty or has a negative corner")
        for name, value, allowed in (
            ("fit", fit, ("crop", "letterbox", "stretch")),
            ("nv12_range", nv12_range, ("full", "limited")),
            ("input_range", input_range, ("auto", "full", "limited")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self._size = (width, height)
        self._fit: Fit = fit
        self._crop_pct = crop_pct
        self._roi = roi
        self._nv12_range: Range = nv12_range
        self._input_range: InputRange = input_range
        self._checked: Nv12Planes | None = None
        self._plans: dict[tuple[PixelFormat, int, int, int], _Plan] = {}

    def convert(self, frame: Frame) -> NDArray[np.uint8]:
        """Converts one frame into a new array of shape (height * 3 // 2, width), uint8.

        Raises:
            FrameError: As `convert_into`.
        """
        width, height = self._size
        nv12 = np.empty((height * 3 // 2, width), np.uint8)
        self.convert_into(frame, Nv12Planes.of(nv12))
        return nv12

    def convert_into(self, frame: Frame, out: Nv12Planes) -> None:
        """Converts one frame to where it is wanted, as in an accelerator's memory.

        Args:
            frame: The frame; only read.
            out: Where to write; planes of the output's size.

        Raises:
            FrameError: The frame is not a picture this class can read, or `roi` lies outside it.
            ValueError: `out` has the wrong shape, type or layout.
        """
        if out is not self._checked:
            self._check(out)
            self._checked = out
        try:
            if frame.encoding in COMPRESSED:
                self._convert_file(frame.data, out)
            else:
                self._convert_raw(frame, out)
        except cv2.error as error:
            raise FrameError("decode", f"OpenCV cannot convert the image: {error}") from error

    def _check(self, out: Nv12Planes) -> None:
        width, height = self._size
        for plane, shape in zip(out, ((height, width), (height // 2, width // 2, 2)), strict=True):
            dense = plane.strides[1:] == (2, 1)[3 - plane.ndim :]
            if plane.shape != shape or plane.dtype != np.uint8 or not dense:
                raise ValueError(f"out must be NV12 planes of {width}x{height}, uint8")

    def _convert_file(self, data: NDArray[np.uint8], out: Nv12Planes) -> None:
        header = read_header(data)
        reduction = self._reduction(header)
        image = decode(data, header, reduction)
        size = (header.width, header.height)
        if image.shape[1] != -(-size[0] // reduction):  # EXIF turned it by 90 degrees
            size = (header.height, header.width)
        pixels = FORMATS["bgr8"]
        plan = self._plan(pixels, size, reduction)
        planes = self._picture(plan, out)
        _write_colour(image, pixels, plan, planes)
        self._match_range(planes, "full")

    def _reduction(self, header: FileHeader) -> int:
        """The most a JPEG can shrink while decoding and still be no smaller than the output.

        A region must start on a whole reduced pixel, or it would shift.
        """
        if not header.is_jpeg:
            return 1
        x, y, width, height = self._roi or Roi(0, 0, header.width, header.height)
        needed = math.floor(max(self._size) / self._crop_pct)
        return next(
            each
            for each in REDUCTIONS
            if each == 1
            or (min(width, height) >= each * needed and x % each == 0 and y % each == 0)
        )

    def _convert_raw(self, frame: Frame, out: Nv12Planes) -> None:
        pixels = pixel_format(frame)
        rows = view(frame, pixels)
        plan = self._plan(pixels, (frame.width, frame.height))
        planes = self._picture(plan, out)
        source: Range = "full"
        match pixels.kind:
            case "colour":
                _write_colour(rows, pixels, plan, planes)
            case "bayer":
                _write_bayer(rows, pixels, plan, planes)
            case "mono":
                np.copyto(planes.y, plan.luma(rows))
                planes.uv.fill(_NEUTRAL)
            case "mono16":
                # The high byte, as libpng's and so OpenCV's 16-to-8-bit conversion keeps.
                high = 0 if frame.is_bigendian else 1
                cv2.extractChannel(plan.luma(rows), high, planes.y)
                planes.uv.fill(_NEUTRAL)
            case "yuv422":
                _write_yuv422(rows, pixels, plan, planes)
                source = "limited" if self._input_range == "auto" else self._input_range
            case "yuv420":
                _write_yuv420(rows, frame.height, pixels, plan, planes)
                source = self._nv12_range if self._input_range == "auto" else self._input_range
        self._match_range(planes, source)

    def _plan(self, pixels: PixelFormat, size: tuple[int, int], reduction: int = 1) -> _Plan:
        key = (pixels, *size, reduction)
        plan = self._plans.get(key)
        if plan is None:
            axes = fit_axes(self._fit, size, self._size, self._crop_pct, self._roi)
            plan = _Plan(axes, size, pixels, reduction)
            if len(self._plans) == _MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan
        return plan

    def _picture(self, plan: _Plan, out: Nv12Planes) -> Nv12Planes:
        """Paints `out` grey if it needs padding, and returns the picture's part of it."""
        x, y = plan.x, plan.y
        if (x.samples, y.samples) != self._size:
            out.y.fill(_PADDING[self._nv12_range])
            out.uv.fill(_NEUTRAL)
        return Nv12Planes(
            out.y[y.start : y.start + y.samples, x.start : x.start + x.samples],
            out.uv[
                y.start // 2 : (y.start + y.samples) // 2,
                x.start // 2 : (x.start + x.samples) // 2,
            ],
        )

    def _match_range(self, planes: Nv12Planes, source: Range) -> None:
        """Converts from the source's range to the model's, in place."""
        if source == self._nv12_range:
            return
        if source == "full":
            luma, chroma, black = 219 / 255, 224 / 255, 16.0
        else:
            luma, chroma, black = 255 / 219, 255 / 224, -16 * 255 / 219
        # Of OpenCV's ways to multiply and add, the one that saturates at both ends; three times
        # faster than a lookup table.
        cv2.addWeighted(planes.y, luma, planes.y, 0, black, planes.y)
        cv2.addWeighted(planes.uv, chroma, planes.uv, 0, _NEUTRAL * (1 - chroma), planes.uv)


def _windows(
    axes: tuple[Axis, Axis], divisor: tuple[int, int], output: int
) -> tuple[Window, Window]:
    """The windows on a plane with `1 / divisor` of the image's resolution."""
    x, y = (
        Window.of(axis.between_planes(each, output))
        for axis, each in zip(axes, divisor, strict=True)
    )
    return x, y


def _write_colour(
    image: NDArray[np.uint8], pixels: PixelFormat, plan: _Plan, planes: Nv12Planes
) -> None:
    to_gray, to_ycrcb = _COLOUR_CODES[pixels]
    small = plan.luma(image)
    cv2.cvtColor(small, to_gray, planes.y)
    # Chroma is linear in R, G, B: averaging first converts a quarter of the pixels. OpenCV's
    # YCrCb factors are 0.564 and 0.713, 1/1.772 and 1/1.402 to three places.
    height, width = planes.uv.shape[:2]
    half: NDArray[Any] = cv2.resize(small, (width, height), plan.half, 0, 0, cv2.INTER_AREA)
    ycrcb: NDArray[Any] = cv2.cvtColor(half, to_ycrcb, plan.ycrcb)
    cv2.mixChannels([ycrcb], [planes.uv], [2, 0, 1, 1])
    plan.half, plan.ycrcb = half, ycrcb


def _write_bayer(
    raw: NDArray[np.uint8], pixels: PixelFormat, plan: _Plan, planes: Nv12Planes
) -> None:
    assert pixels.to_bgr is not None
    bgr: NDArray[Any] = cv2.cvtColor(raw[plan.part], pixels.to_bgr, plan.demosaiced)
    _write_colour(bgr, FORMATS["bgr8"], plan, planes)
    plan.demosaiced = bgr


def _write_yuv422(
    packed: NDArray[np.uint8], pixels: PixelFormat, plan: _Plan, planes: Nv12Planes
) -> None:
    assert plan.chroma is not None
    y, u, v = pixels.order
    cv2.extractChannel(plan.luma(packed), y, planes.y)
    cv2.mixChannels([plan.chroma(macropixels(packed))], [planes.uv], [u, 0, v, 1])


def _write_yuv420(
    rows: NDArray[np.uint8], height: int, pixels: PixelFormat, plan: _Plan, planes: Nv12Planes
) -> None:
    assert plan.chroma is not None
    np.copyto(planes.y, plan.luma(rows[:height]))
    pairs = plan.chroma(chroma_pairs(rows))
    if pixels.order == (0, 0, 1):
        np.copyto(planes.uv, pairs)
    else:
        cv2.mixChannels([pairs], [planes.uv], [1, 0, 0, 1])
