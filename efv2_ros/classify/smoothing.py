"""Smoothing over time: what a stream's images say together, for a best class that stays."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

Smoothing = Literal["off", "ema", "vote"]
"""`ema`: exponential moving average of the classes' probabilities; `vote`: each image's best class
is a vote, and the scores are shares of the votes."""

SMOOTHINGS = get_args(Smoothing)

_GAP = 5.0
"""Time constants without an image after which the average begins anew; it would count 0.7 %."""


class Smoother(Protocol):
    """Smooths the logits of a stream's images. Not thread-safe."""

    def __call__(self, logits: NDArray[np.float32], stamp_ns: int) -> NDArray[np.float32]:
        """Take in an image, and return what it and the ones before say together.

        A stamp that is not later than the one before begins anew, as a bag that is played in a
        loop does.

        Args:
            logits: float32 of shape (classes,).
            stamp_ns: Stamp of the image in nanoseconds.

        Returns:
            Logits of the smoothed probabilities, float32 of shape (classes,); minus infinity for a
            class whose probability is 0. Logits of which one is plus infinity or not a number are
            returned as they are, and do not count.
        """


def smoother(smoothing: Smoothing, seconds: float) -> Smoother | None:
    """Make a smoother; None for `off`.

    Args:
        smoothing: The kind.
        seconds: Time constant of the average, or length of the time whose images vote.
    """
    if smoothing == "ema":
        return MovingAverage(seconds)
    return Vote(seconds) if smoothing == "vote" else None


class MovingAverage:
    """Exponential moving average of the probabilities, by the stamps of the images.

    An image that comes `t` seconds after the one before leaves the average so far with the weight
    `exp(-t / seconds)`, whatever the rate of the images.

    Args:
        seconds: The time constant.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._average = np.empty(0)
        self._stamp_ns = 0

    def __call__(self, logits: NDArray[np.float32], stamp_ns: int) -> NDArray[np.float32]:
        """See `Smoother`."""
        if not math.isfinite(logits.max()):  # or one of them is not a number
            return logits
        passed, self._stamp_ns = (stamp_ns - self._stamp_ns) * 1e-9, stamp_ns
        exponentials = np.exp(logits - logits.max(), dtype=np.float64)
        probabilities = exponentials / exponentials.sum()
        if self._average.shape == logits.shape and 0 < passed <= _GAP * self._seconds:
            kept = math.exp(-passed / self._seconds)
            probabilities += kept * (self._average - probabilities)
        self._average = probabilities
        return _logarithms(probabilities)


class Vote:
    """Votes of the images of the last seconds, each for its best class.

    Args:
        seconds: Length of the time whose images vote.
    """

    def __init__(self, seconds: float) -> None:
        self._length_ns = round(seconds * 1e9)
        self._votes: deque[tuple[int, int]] = deque()  # stamps and classes

    def __call__(self, logits: NDArray[np.float32], stamp_ns: int) -> NDArray[np.float32]:
        """See `Smoother`."""
        if not math.isfinite(logits.max()):  # or one of them is not a number
            return logits
        votes = self._votes
        if votes and stamp_ns <= votes[-1][0]:
            votes.clear()
        votes.append((stamp_ns, int(logits.argmax())))
        while votes[0][0] < stamp_ns - self._length_ns:
            votes.popleft()
        shares = np.zeros(logits.shape)
        for class_id, count in Counter(class_id for _, class_id in votes).items():
            shares[class_id] = count / len(votes)
        return _logarithms(shares)


def _logarithms(probabilities: NDArray[np.float64]) -> NDArray[np.float32]:
    """Logits whose softmax are these probabilities."""
    with np.errstate(divide="ignore"):
        return np.log(probabilities).astype(np.float32)
