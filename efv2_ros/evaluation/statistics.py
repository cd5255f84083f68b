"""What counts of right and wrong answers say, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054
"""Of the standard normal distribution, 95 % lie within this distance from 0."""


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def wilson(successes: int, trials: int) -> Interval:
    """The score interval of a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22 (1927), 209-212. Unlike the normal approximation, it
    also holds for few images and for accuracies close to 0 or 1.

    Args:
        successes: Right answers.
        trials: Images, at least 1.
    """
    share = successes / trials
    spread = _Z**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(only_first: int, only_second: int) -> float:
    """The probability that two equally good models differ by so much or more, two-sided.

    Only the images that one of the models got right count: if both were equally good, each such
    image would be either's with probability 1/2. Exact, from the binomial distribution: Q.
    McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947), 153-157; the exact form as in Fagerland, Lydersen and
    Laake, BMC Medical Research Methodology 13:91 (2013).

    Args:
        only_first: Images that the first model alone got right.
        only_second: Images that the second model alone got right.
    """
    trials = only_first + only_second
    ways, tail = 1, 0
    for successes in range(min(only_first, only_second) + 1):
        tail += ways
        ways = ways * (trials - successes) // (successes + 1)
    return min(1.0, 2 * tail / (1 << trials))


def paired_difference(only_first: int, only_second: int, trials: int) -> Interval:
    """The interval of the first model's accuracy minus the second's, over the same images.

    Wald's, with an image more for either model: D. G. Bonett and R. M. Price, "Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired data", Journal of
    Educational and Behavioral Statistics 37 (2012), 479-488.

    Args:
        only_first: Images that the first model alone got right.
        only_second: Images that the second model alone got right.
        trials: All images.
    """
    first, second = (only_first + 1) / (trials + 2), (only_second + 1) / (trials + 2)
    centre = first - second
    half = _Z * math.sqrt((first + second - centre**2) / (trials + 2))
    return Interval(max(-1.0, centre - half), min(1.0, centre + half))


def cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Cosine of the angle between two models' logits, float32 of shape (classes,).

    Classes that a model rules out, by minus infinity, are left out. 0 where nothing remains.
    """
    finite = np.isfinite(first) & np.isfinite(second)
    a, b = first[finite].astype(np.float64), second[finite].astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


def confusion_matrix(
    class_ids: Sequence[int], predicted: Sequence[int], classes: int
) -> NDArray[np.int64]:
    """How many images of each class (row) were taken for which (column).

    Returns:
        int64 of shape (classes, classes).
    """
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(class_ids, np.intp), np.asarray(predicted, np.intp)), 1)
    return matrix


def confusions(matrix: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Class, class it was taken for, and how often: the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    found = zip(rows.tolist(), columns.tolist(), wrong[rows, columns].tolist(), strict=True)
    return sorted(found, key=lambda each: (-each[2], each[0], each[1]))
