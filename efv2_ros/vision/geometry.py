"""Geometry of crop, letterbox and stretch, and resizing with sub-pixel accuracy.

Positions are those of pixel edges: pixel `i` covers `[i, i + 1)`, its centre is `i + 0.5`. To get
the position in a plane of half the resolution (chroma, a reduced JPEG), divide by two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.frame import FrameError

Fit = Literal["crop", "letterbox", "stretch"]
"""`crop`: timm's evaluation crop; `letterbox`: whole picture between grey bars; `stretch`: whole
picture, aspect ratio changed."""

_MAX_PHASE_ERROR = 1 / 30
"""In used source pixels. On an edge of 30 levels per pixel, this is an error of one level."""

_MAX_SKIP = 1024
"""Maximum number of samples that are computed and discarded to start with an exact phase."""


class Roi(NamedTuple):
    """Region of interest: the part of the source image to use, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Roi:
        """Parse `x,y,width,height`.

        Raises:
            ValueError: The text has another form, or the region is empty or begins outside.
        """
        try:
            x, y, width, height = (int(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"a roi is 'x,y,width,height' in pixels, not '{text}'") from None
        if min(x, y) < 0 or min(width, height) < 1:
            raise ValueError(f"the roi '{text}' is empty or begins outside the image")
        return cls(x, y, width, height)


class Axis(NamedTuple):
    """Mapping of one axis: output sample `start + i` shows position `offset + (i + 0.5) * step`.

    Attributes:
        step: Source pixels per output sample.
        offset: Source position of the first sample's left edge.
        samples: Samples that show the picture; the rest of the output is padding.
        start: Index of the first of these samples in the output.
        lower: First source pixel of the picture; pixels before it are not read.
        upper: Index after the last source pixel of the picture.
    """

    step: float
    offset: float
    samples: int
    start: int
    lower: int
    upper: int

    def between_planes(self, source: int, output: int) -> Axis:
        """Return the same mapping for planes with `1/source` and `1/output` of the resolution."""
        return Axis(
            self.step * output / source,
            self.offset / source,
            self.samples // output,
            self.start // output,
            self.lower // source,
            -(-self.upper // source),
        )


def fit_axes(
    fit: Fit, source: tuple[int, int], target: tuple[int, int], crop_pct: float, roi: Roi | None
) -> tuple[Axis, Axis]:
    """Compute the mapping from a picture to the model's input.

    `crop` is what timm's `transforms_imagenet_eval` does with `crop_mode="center"`: the short side
    becomes `floor(size / crop_pct)`, the long side follows, the centre is cut out. `letterbox`
    keeps its content on even positions, so that no chroma sample mixes picture and padding.

    Args:
        fit: How the picture fills the output.
        source: Width and height of the image.
        target: Width and height of the output, even numbers.
        crop_pct: Share of the resized picture that `crop` keeps.
        roi: Part of the image to use instead of all of it.

    Returns:
        The horizontal and the vertical axis.

    Raises:
        FrameError: `roi`, when it does not lie inside the image.
    """
    x, y, width, height = roi or Roi(0, 0, *source)
    if x + width > source[0] or y + height > source[1]:
        raise FrameError(
            "roi",
            f"region of interest {width}x{height} at ({x}, {y}) reaches outside "
            f"the {source[0]}x{source[1]} image",
        )
    if fit == "crop":
        resized = _timm_resize((width, height), target, crop_pct)
        return (
            _cropped_axis(x, width, resized[0], target[0]),
            _cropped_axis(y, height, resized[1], target[1]),
        )
    scale = min(target[0] / width, target[1] / height) if fit == "letterbox" else None
    return (_whole_axis(x, width, target[0], scale), _whole_axis(y, height, target[1], scale))


def _timm_resize(
    source: tuple[int, int], target: tuple[int, int], crop_pct: float
) -> tuple[int, int]:
    """Return the size before the centre crop: torchvision's `Resize`, timm's `ResizeKeepRatio`."""
    width, height = source
    scaled = tuple(math.floor(side / crop_pct) for side in target)
    if scaled[0] == scaled[1]:
        short, long = min(source), max(source)
        resized_long = int(scaled[0] * long / short)
        return (scaled[0], resized_long) if width <= height else (resized_long, scaled[0])
    ratio = min(width / scaled[0], height / scaled[1])
    return round(width / ratio), round(height / ratio)


def _cropped_axis(origin: int, length: int, resized: int, target: int) -> Axis:
    step = length / resized
    # Rounds half to even, as torchvision's center_crop does: 5.5 becomes 6.
    offset = origin + round((resized - target) / 2) * step
    return Axis(step, offset, target, 0, origin, origin + length)


def _whole_axis(origin: int, length: int, target: int, scale: float | None) -> Axis:
    samples = target if scale is None else 2 * max(1, round(length * scale / 2))
    start = (target - samples) // 4 * 2
    return Axis(length / samples, origin, samples, start, origin, origin + length)


class Window(NamedTuple):
    """Pixels that one `Axis` needs of a plane, and how `cv2.resize` has to resize them.

    Attributes:
        first: Index of the first pixel.
        last: Index after the last pixel.
        stride: Distance between the pixels used; 2 is every second one.
        skip: Resized samples before the first wanted one.
        samples: Number of wanted samples.
        step: Used pixels per sample.
        mean: Number of neighbouring samples that are averaged to one output sample.
    """

    first: int
    last: int
    stride: int
    skip: int
    samples: int
    step: float
    mean: int

    @classmethod
    def of(cls, axis: Axis, antialias: bool, may_stride: bool = False) -> Window:
        """Compute the window of an axis.

        Two samples per output sample look at four pixels. Where an output sample stands for at
        least four pixels, a stride reads fewer of them and spreads them evenly: faster, and closer
        to an antialiased bicubic picture.

        Args:
            axis: The mapping from the plane to the output.
            antialias: Take two samples per output sample where the picture shrinks.
            may_stride: Whether the plane can be read with a stride: rows can, columns cannot.

        Returns:
            The window with the largest stride of at most half an output sample whose phase is
            exact. Without a stride, the window with the best phase.
        """
        mean = 2 if antialias and axis.step > 1 else 1
        axis = axis._replace(step=axis.step / mean, samples=axis.samples * mean)
        for stride in range(int(axis.step) if may_stride and mean == 2 else 1, 1, -1):
            window, error = cls._strided(axis, mean, stride)
            if error <= _MAX_PHASE_ERROR and window.resized >= window.skip + window.samples:
                return window
        return cls._strided(axis, mean, 1)[0]

    @classmethod
    def _strided(cls, axis: Axis, mean: int, stride: int) -> tuple[Window, float]:
        """Return the best window with this stride, and its phase error in used pixels.

        `cv2.resize` starts on the edge of a pixel, while a crop starts anywhere. Starting `skip`
        samples early moves the start; the smallest `skip` that meets an edge is used.
        """
        step = axis.step / stride
        # A used pixel stands for `stride` pixels, with itself in their middle.
        before = (stride - 1) / 2
        room = axis.offset - axis.lower + before + 0.5
        skips = np.arange(min(int(room / axis.step), _MAX_SKIP) + 1)
        exact = axis.offset - skips * axis.step + before
        # Rounds half down: rounded up, half a pixel could be missing at the other end.
        firsts = np.maximum(np.ceil(exact - 0.5), axis.lower)
        errors = np.abs(firsts - exact) / stride
        # The first sample of an enlarged picture needs the pixel on its left.
        errors[(firsts > axis.lower) & ((skips + 0.5) * step < 0.5)] = np.inf
        near = np.flatnonzero(errors <= _MAX_PHASE_ERROR)
        skip = int(near[0] if near.size else np.argmin(errors))
        first = int(firsts[skip])
        # One more pixel, the last sample's right-hand neighbour.
        last = first + math.ceil((skip + axis.samples) * step) * stride + 1
        window = cls(first, min(last, axis.upper), stride, skip, axis.samples, step, mean)
        return window, float(errors[skip])

    @property
    def part(self) -> slice:
        """Used pixels, as an index of the plane."""
        return slice(self.first, self.last, self.stride)

    @property
    def pixels(self) -> int:
        """Number of used pixels."""
        return len(range(self.first, self.last, self.stride))

    @property
    def resized(self) -> int:
        """Number of samples that `cv2.resize` makes of the used pixels."""
        return round(self.pixels / self.step)

    @staticmethod
    def covering(windows: Sequence[Window], margin: int, length: int) -> slice:
        """Return the pixels of all windows and `margin` more on each side, starting even."""
        first = min(each.first for each in windows)
        last = max(each.last for each in windows)
        return slice(max(0, first - margin) // 2 * 2, min(length, last + margin))

    def within(self, part: slice) -> Window:
        """Return the same window of a plane that is only `part` of this one."""
        return self._replace(first=self.first - part.start, last=self.last - part.start)


class Resampler:
    """Resizes one plane to a fixed grid and reads only the pixels it needs.

    Samples are bilinear. If a picture shrinks to less than half, bilinear sampling leaves pixels
    out, which shows as false detail (aliasing). A window made with `antialias` therefore has two
    samples per output sample, and the mean of 2 (2x2 if both axes shrink) is the output.

    Not thread-safe: it owns its scratch buffers.
    """

    def __init__(self, x: Window, y: Window) -> None:
        self._source = (y.part, x.part)
        self._wanted = (slice(y.skip, y.skip + y.samples), slice(x.skip, x.skip + x.samples))
        self._scale = (1 / x.step, 1 / y.step)
        self._size = (x.samples // x.mean, y.samples // y.mean)
        self._takes_means = (x.mean, y.mean) != (1, 1)
        # Scratch that OpenCV allocates on the first frame and reuses from then on.
        self._resized: NDArray[Any] | None = None
        self._channel: NDArray[Any] | None = None
        self._means: NDArray[Any] | None = None
        # cv2.resize only copies when the size stays the same, however the scale rounds to that.
        self._is_copied = (x.step, y.step) != (1, 1) and all(
            each.resized == each.pixels for each in (x, y)
        )
        self._affine = np.array(
            [[x.step, 0, x.step / 2 - 0.5], [0, y.step, y.step / 2 - 0.5]], np.float64
        )

    def __call__(self, plane: NDArray[np.uint8], channel: int | None = None) -> NDArray[np.uint8]:
        """Resize a plane of shape (height, width) or (height, width, channels), uint8.

        Args:
            plane: The whole plane that the windows belong to.
            channel: Index of the only channel that is wanted; None for all.

        Returns:
            The samples, uint8, of shape (height, width) if one channel is wanted; a view of
            scratch buffers that the next call overwrites.
        """
        return self.resample(self.crop(plane), channel)

    def crop(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the pixels of a plane that `resample` needs, as a view."""
        return plane[self._source]

    def resample(self, part: NDArray[np.uint8], channel: int | None = None) -> NDArray[np.uint8]:
        """Resize what `crop` returned, or a conversion of it; otherwise as `__call__`."""
        self._resized = self._resize(part)
        samples: NDArray[Any] = self._resized[self._wanted]
        if channel is not None:  # before the means: OpenCV's of two channels are 30 times slower
            samples = self._channel = cv2.extractChannel(samples, channel, self._channel)
        if self._takes_means:
            samples = self._means = cv2.resize(
                samples, self._size, self._means, 0, 0, cv2.INTER_AREA
            )
        return samples

    def _resize(self, part: NDArray[np.uint8]) -> NDArray[Any]:
        if self._is_copied:
            return cv2.warpAffine(
                part,
                self._affine,
                part.shape[1::-1],
                self._resized,
                cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                cv2.BORDER_REPLICATE,
            )
        # The scale is given, not the size: a size would round the scale and shift the crop.
        return cv2.resize(part, None, self._resized, *self._scale, cv2.INTER_LINEAR)
