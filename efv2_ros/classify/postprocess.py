"""Softmax and top-k: from logits to the best classes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_FEW = 32
"""Up to so many classes are found by as many passes over the logits."""


class Prediction(NamedTuple):
    """The best classes of one image, best first.

    Attributes:
        class_ids: Indices into the model's output.
        scores: Softmax probabilities, 0..1.
    """

    class_ids: tuple[int, ...]
    scores: tuple[float, ...]


class TopK:
    """Softmax and top-k. Not thread-safe: it owns its scratch buffers.

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
        self._remaining = np.empty(classes, np.float32)
        self._exponentials = np.empty(classes, np.float64)

    def __call__(self, logits: NDArray[np.float32]) -> Prediction:
        """Picks the best classes; of equal ones, as quantised models have, the lower index first.

        Args:
            logits: float32 of shape (classes,). Minus infinity rules a class out.

        Raises:
            ValueError: The shape is wrong, or a logit is plus infinity or not a number.
        """
        exponentials = self._exponentials
        if logits.shape != exponentials.shape:
            raise ValueError(f"expected logits of shape {exponentials.shape}, got {logits.shape}")
        best = self._best(logits)
        highest = logits.item(best[0])
        if not math.isfinite(highest):
            raise ValueError("the model returned logits that are not finite")
        # The highest logit becomes exp(0): nothing overflows, and the sum is at least 1.
        np.subtract(logits, highest, out=exponentials, dtype=np.float64)
        np.exp(exponentials, out=exponentials)
        total = exponentials.sum().item()
        if math.isnan(total):
            raise ValueError("the model returned logits that are not finite")
        scores = [exponentials.item(index) / total for index in best]
        kept = sum(score >= self._threshold for score in scores)
        return Prediction(tuple(best[:kept]), tuple(scores[:kept]))

    def _best(self, logits: NDArray[np.float32]) -> list[int]:
        """Indices of the k highest logits."""
        if self._k <= _FEW:
            # After an inference the caches are cold, and a sort costs twice what passes do.
            remaining, best = self._remaining, list[int]()
            np.copyto(remaining, logits)
            for _ in range(self._k):
                index = int(remaining.argmax())
                if remaining.item(index) == -math.inf:
                    break  # nothing but what is ruled out remains: let the sort order it
                best.append(index)
                remaining[index] = -math.inf
            else:
                return best
        order: list[int] = np.argsort(-logits, kind="stable")[: self._k].tolist()
        return order
