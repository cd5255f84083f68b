"""Linear and logarithmic scales, ticks, and the formatting of figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from efv2_ros.report.series import Axis, Floats, clock

_MINUTES = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Steps in seconds of a time axis that is labelled in minutes."""

_SANE = (1e-6, 1e12)
"""Least and greatest milliseconds that scales distinguish: a nanosecond and 32 years."""

_INTERVALS = 3
"""Approximate number of intervals between the ticks of a linear scale."""


@dataclass(frozen=True)
class Scale:
    """A mapping of values to 0..1.

    Attributes:
        low: Value that is mapped to 0.
        high: Value that is mapped to 1.
        logarithmic: Whether the scale is logarithmic instead of linear.
    """

    low: float
    high: float
    logarithmic: bool = False

    def __call__(self, values: Floats) -> Floats:
        """Map values; those outside the scale are clipped to its ends."""
        if self.logarithmic:
            ratios: Floats = np.log(np.maximum(values, self.low) / self.low)
            return (ratios / math.log(self.high / self.low)).clip(0.0, 1.0)
        return ((values - self.low) / (self.high - self.low)).clip(0.0, 1.0)

    def ticks(self, most: int) -> list[float]:
        """Choose round values within the scale, ascending, at most `most` of them."""
        if not self.logarithmic:
            return steps(self.low, self.high, _round_step((self.high - self.low) / most))
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for mantissas in ((1, 2, 5), (1, 3), (1,)):
            ticks = [
                mantissa * 10.0**exponent
                for exponent in exponents
                for mantissa in mantissas
                if self.low <= mantissa * 10.0**exponent <= self.high
            ]
            if len(ticks) <= most:
                return ticks
        return ticks[:: math.ceil(len(ticks) / most)]


def linear_scale(values: Floats) -> Scale:
    """Make a scale from 0, or a tick below a negative minimum, to the tick above the maximum."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if high - low < _SANE[0]:
        return Scale(0.0, 1.0)
    step = _round_step((high - low) / _INTERVALS)
    return Scale(math.floor(low / step) * step, math.ceil(high / step) * step)


def logarithmic_scale(values: Floats) -> Scale:
    """Make a scale that spans all positive values and at least a decade."""
    positive = values[values > 0].clip(*_SANE)
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.1, 1.0)
    spare = max(1.2, math.sqrt(10 / (high / low)))
    return Scale(low / spare, high * spare, logarithmic=True)


def time_ticks(axis: Axis, most: int) -> list[tuple[float, str]]:
    """Choose round positions on the axis, at most about `most`, and format them."""
    least = (axis.end - axis.start) / most
    if axis.unit == "images":
        step = max(1.0, _round_step(least))
        return [(each, f"{each:.0f}") for each in steps(axis.start, axis.end, step) if each >= 1]
    if axis.end < 120:
        return [(each, _tick(each)) for each in steps(axis.start, axis.end, _round_step(least))]
    step = next((each for each in _MINUTES if each >= least), 86400 * _round_step(least / 86400))
    step = next((each for each in (15, 30) if each >= least), step)
    return [(each, clock(each)) for each in steps(axis.start, axis.end, step)]


def steps(low: float, high: float, step: float) -> list[float]:
    """Return all multiples of `step` in a range."""
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]


def _round_step(least: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= least * (1 - 1e-9))


def _tick(value: float) -> str:
    return f"{value:.6g}"


def figure(milliseconds: float) -> str:
    """Format a duration with three significant digits, without its unit."""
    if abs(milliseconds) >= 100:
        return f"{milliseconds:.0f}"
    decimals = 2 - math.floor(math.log10(max(abs(milliseconds), 1e-3)))
    return f"{milliseconds:.{min(3, decimals)}f}"


def count(number: int, noun: str, plural: str = "") -> str:
    """Format a number of things, such as `1 image` and `2,000 images`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
