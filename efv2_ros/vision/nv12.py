"""Conversion of camera frames to the model's NV12 input.

NV12 is a full-resolution Y plane followed by one plane of interleaved U, V at half the resolution.
The colours are those of BT.601, R, G, B in 0..255 (JFIF 1.02):

    Y = 0.299 R + 0.587 G + 0.114 B,    U = (B - Y) / 1.772 + 128,    V = (R - Y) / 1.402 + 128

in full range; U and V stand for 2x2 pixels. Limited range scales Y to 16..235, U and V to 16..240.
The BPU's models expect full range. OpenCV's BGR2YUV_I420 is not used: it computes limited range,
and takes the chroma of one pixel in four.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.compressed import (
    MAX_PIXELS,
    REDUCTIONS,
    FileHeader,
    decode,
    read_header,
)
from efv2_ros.vision.frame import Frame, FrameError
from efv2_ros.vision.geometry import Fit, Roi, fit_axes
from efv2_ros.vision.pixels import COMPRESSED, PIXEL_FORMATS, PixelFormat, pixel_format, view
from efv2_ros.vision.plane_writer import NEUTRAL, PlaneWriter
from efv2_ros.vision.planes import Nv12Planes
from efv2_ros.vision.turbojpeg import JpegDecoder

__all__ = ["Fit", "InputRange", "Nv12Converter", "Range", "Roi", "check"]

Range = Literal["full", "limited"]
"""Y in 0..255, or in 16..235."""

InputRange = Literal["auto", "full", "limited"]
"""Range of the YUV that a camera sends; `auto` decides by the encoding."""

_PADDING: dict[Range, int] = {"full": 127, "limited": 125}
"""Y of the letterbox's grey, RGB 127: 16 + 127 * 219 / 255 = 125.07 in limited range."""

_MAX_WRITERS = 8
"""Maximum number of image sizes whose buffers are kept; a camera has one size."""


def check(frame: Frame, max_pixels: int = MAX_PIXELS) -> None:
    """Check a frame without reading its pixels; takes microseconds.

    Args:
        frame: The frame.
        max_pixels: Largest size of a compressed image that is accepted, in pixels.

    Raises:
        FrameError: As `Nv12Converter.convert`, except for `roi` and files that look right but
            cannot be decoded.
    """
    if frame.encoding in COMPRESSED:
        read_header(frame.data, max_pixels)
    else:
        view(frame, pixel_format(frame))


class Nv12Converter:
    """Converter of frames of any supported encoding and size to NV12 of one size.

    Sampling is bilinear, with pixel centres aligned as in OpenCV, PIL and torch; see `antialias`
    for pictures that shrink. Planes of YUV sources are resized separately. A chroma sample is
    taken to lie in the middle of the pixels that share it, and may be shifted by up to half a
    chroma sample if a crop starts between two of them. Luma and RGB are exact to 1/30 of a source
    pixel; where only every k-th row is read, to 1/30 of k rows.

    Not thread-safe: use one converter per worker. Memory and geometry are set up on the first
    frame of a size and reused.

    Args:
        width: Output width, even.
        height: Output height, even.
        fit: How the picture fills the output.
        crop_pct: Share of the resized picture that `fit="crop"` keeps, in (0, 1].
        roi: Part of each image to use; pixels outside are never read. For compressed photos, in
            pixels of the upright picture.
        nv12_range: Range that the model was compiled for.
        input_range: Range of YUV frames. `auto` assumes that nv12 and nv21 already have the
            model's range, as D-Robotics' nodes do, and that other YUV is limited, V4L2's default
            for YCbCr.
        antialias: Where the picture shrinks, take two samples per output pixel and axis, and
            average them. If False, an output pixel depends on 2x2 source pixels only, as with
            `cv2.resize`.
        max_pixels: Maximum size of a compressed image that is accepted, in pixels.

    Raises:
        ValueError: An argument is out of range.
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
        antialias: bool = True,
        max_pixels: int = MAX_PIXELS,
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
        self._antialias = antialias
        self._max_pixels = max_pixels
        self._jpeg = JpegDecoder()
        self._checked: Nv12Planes | None = None
        self._writers: dict[tuple[PixelFormat, int, int, int], PlaneWriter] = {}

    def convert(self, frame: Frame) -> NDArray[np.uint8]:
        """Convert one frame to a new array of shape (height * 3 // 2, width), uint8.

        Raises:
            FrameError: As `convert_into`.
        """
        width, height = self._size
        nv12 = np.empty((height * 3 // 2, width), np.uint8)
        self.convert_into(frame, Nv12Planes.of(nv12))
        return nv12

    def convert_into(self, frame: Frame, out: Nv12Planes) -> None:
        """Convert one frame into existing memory, such as an accelerator's.

        Args:
            frame: The frame; only read.
            out: Where to write; planes of the output's size.

        Raises:
            FrameError: The frame cannot be read as a picture, or `roi` lies outside it.
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
        header = read_header(data, self._max_pixels)
        reduction = self._reduction(header)
        picture = self._jpeg.decode(
            data, header, reduction, self._roi[:2] if self._roi else (0, 0)
        )
        if picture is not None:
            layout = PixelFormat("planar", 1, None, shared=picture.shared)
            writer = self._writer(layout, (header.width, header.height), reduction)
            planes = self._picture(writer, out)
            writer.write_planes(picture.planes, planes)
            self._match_range(planes, "full")
            return
        image = decode(data, header, reduction)
        size = (header.width, header.height)
        if image.shape[1] != -(-size[0] // reduction):  # EXIF turned it by 90 degrees
            size = (header.height, header.width)
        pixels = PIXEL_FORMATS["bgr8"]
        writer = self._writer(pixels, size, reduction)
        planes = self._picture(writer, out)
        writer.write(image, planes)
        self._match_range(planes, "full")

    def _reduction(self, header: FileHeader) -> int:
        """Return the largest factor by which a JPEG may shrink while it is decoded.

        The result must not be smaller than the output. A region must start on a whole pixel of
        the reduced picture, or it would be shifted.
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
        writer = self._writer(pixels, (frame.width, frame.height))
        planes = self._picture(writer, out)
        writer.write(rows, planes, frame.is_bigendian)
        self._match_range(planes, self._source_range(pixels))

    def _source_range(self, pixels: PixelFormat) -> Range:
        if pixels.kind not in ("yuv420", "yuv422"):
            return "full"
        if self._input_range != "auto":
            return self._input_range
        return self._nv12_range if pixels.kind == "yuv420" else "limited"

    def _writer(
        self, pixels: PixelFormat, size: tuple[int, int], reduction: int = 1
    ) -> PlaneWriter:
        key = (pixels, *size, reduction)
        writer = self._writers.get(key)
        if writer is None:
            axes = fit_axes(self._fit, size, self._size, self._crop_pct, self._roi)
            writer = PlaneWriter(axes, size, pixels, reduction, self._antialias)
            if len(self._writers) == _MAX_WRITERS:
                del self._writers[next(iter(self._writers))]
            self._writers[key] = writer
        return writer

    def _picture(self, writer: PlaneWriter, out: Nv12Planes) -> Nv12Planes:
        """Fill `out` with grey if it needs padding; return the part that shows the picture."""
        x, y = writer.x, writer.y
        if (x.samples, y.samples) == self._size:
            return out
        out.y.fill(_PADDING[self._nv12_range])
        out.uv.fill(NEUTRAL)
        return Nv12Planes(
            out.y[y.start : y.start + y.samples, x.start : x.start + x.samples],
            out.uv[
                y.start // 2 : (y.start + y.samples) // 2,
                x.start // 2 : (x.start + x.samples) // 2,
            ],
        )

    def _match_range(self, planes: Nv12Planes, source: Range) -> None:
        """Convert from the source's range to the model's, in place."""
        if source == self._nv12_range:
            return
        if source == "full":
            luma, chroma, black = 219 / 255, 224 / 255, 16.0
        else:
            luma, chroma, black = 255 / 219, 255 / 224, -16 * 255 / 219
        # addWeighted saturates at both ends, and is three times faster than a lookup table.
        cv2.addWeighted(planes.y, luma, planes.y, 0, black, planes.y)
        cv2.addWeighted(planes.uv, chroma, planes.uv, 0, NEUTRAL * (1 - chroma), planes.uv)
