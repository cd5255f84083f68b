"""Logits to the best few classes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Prediction(NamedTuple):
    """The best classes of one image, best first.

    Attributes:
        class_ids: Indices into the model's output.
        scores: Softmax probabilities, 0..1.
    """

    class_ids: tuple[int, ...]
    scores: tuple[float, ...]


class TopK:
    """Softmax and top-k. Not thread-safe: it owns its scratch buffer.

    Args:
        classes: Number of logits.
        k: Most classes to report; more than `classes` means all.
        threshold: Classes with a lower score are left out.

    Raises:
        ValueError: `classes` or `k` is below 1, or `threshold` outside 0..1.
    """

    def __init__(self, classes: int, k: int = 5, threshold: float = 0.0) -> None:
        if classes < 1 or k < 1:
            raise ValueError(f"classes and k must be at least 1, got {classes} and {k}")
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold must lie in 0..1, got {threshold}")
        self._k = min(k, classes)
        self._threshold = threshold
        self._buffer = np.empty(classes, np.float32)

    def __call__(self, logits: NDArray[np.float32]) -> Prediction:
        """Picks the best classes; of equal ones, as quantised models have, the lower index first.

        Every call into NumPy finds the caches cold after an inference, so there are few: a full
        sort costs less than the steps that would avoid it.

        Args:
            logits: float32 of shape (classes,).

        Raises:
            ValueError: The shape is wrong, or a logit is infinite or not a number.
        """
        exponentials = self._buffer
        if logits.shape != exponentials.shape:
            raise ValueError(f"expected logits of shape {exponentials.shape}, got {logits.shape}")
        np.negative(logits, out=exponentials)
        order = exponentials.argsort(kind="stable")
        best, highest, last = order[: self._k], logits[order[0]], logits[order[-1]]
        # Infinities sort to the ends, and what is not a number to the last place.
        if not (math.isfinite(highest) and math.isfinite(last)):
            raise ValueError("the model returned logits that are not finite")
        # The highest logit becomes exp(0): nothing overflows, and the sum is at least 1.
        with np.errstate(over="ignore"):  # -inf is right: its score is 0
            np.subtract(logits, highest, out=exponentials)
        np.exp(exponentials, out=exponentials)
        total = float(exponentials.sum())
        scores = (exponentials[best] / total).tolist()
        kept = sum(score >= self._threshold for score in scores)
        return Prediction(tuple(best[:kept].tolist()), tuple(scores[:kept]))
