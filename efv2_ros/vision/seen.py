"""The part of a picture that the network sees."""

from __future__ import annotations

from typing import NamedTuple

from efv2_ros.vision.geometry import Fit, Roi, fit_axes

_ROUNDING = 1e-6
"""Pixels by which rounding may shift an edge."""


class Seen(NamedTuple):
    """A picture's size, and the edges of the part of it that the network sees, in pixels.

    Position 0 is the left or upper edge of the first pixel, as in `geometry`.

    Attributes:
        width: Width of the picture, upright.
        height: Height of the picture.
        left: Left edge of the part.
        top: Upper edge.
        right: Right edge.
        bottom: Lower edge.
    """

    width: int
    height: int
    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        fit: Fit,
        target: tuple[int, int],
        crop_pct: float,
        roi: Roi | None,
    ) -> Seen:
        """Compute the part; see `fit_axes` for the arguments and errors."""
        x, y = fit_axes(fit, size, target, crop_pct, roi)
        return cls(
            *size,
            float(x.offset),
            float(y.offset),
            x.offset + x.samples * x.step,
            y.offset + y.samples * y.step,
        )

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """Corners of the part as (x, y), clockwise; none if it is the whole picture."""
        missing = (self.left, self.top, self.width - self.right, self.height - self.bottom)
        if max(missing) < _ROUNDING:
            return ()
        return (
            (self.left, self.top),
            (self.right, self.top),
            (self.right, self.bottom),
            (self.left, self.bottom),
        )
