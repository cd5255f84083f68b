"""Confidence intervals and tests for counts of right and wrong answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.evaluation.classes import EvaluationError

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A confidence interval; the level is `CONFIDENCE`."""

    low: float
    high: float


def scipy_stats() -> Any:
    """Import `scipy.stats`. It takes a second and is needed only once all answers are known.

    Raises:
        EvaluationError: SciPy is not installed or does not work.
    """
    try:
        import scipy.stats
    except ImportError as error:
        raise EvaluationError(
            f"an evaluation needs SciPy 1.8 or newer, and it cannot be imported ({error}): "
            "sudo apt install python3-scipy, or pip install scipy"
        ) from error
    return scipy.stats


def wilson(successes: int, trials: int) -> Interval:
    """Compute Wilson's score interval of a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22 (1927), 209-212. Unlike the normal approximation, it
    also holds for few images and for accuracies close to 0 or 1.

    Args:
        successes: Number of right answers.
        trials: Number of images, at least 1.
    """
    test = scipy_stats().binomtest(successes, trials)
    return Interval(*map(float, test.proportion_ci(CONFIDENCE, method="wilson")))


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test.

    The null hypothesis is that both models are equally good. Only the images that exactly one of
    them got right count: under the null hypothesis, each is either model's with probability 1/2.
    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947), 153-157; the exact form as in Fagerland, Lydersen and
    Laake, BMC Medical Research Methodology 13:91 (2013).

    Args:
        only_first: Number of images that the first model alone got right.
        only_second: Number of images that the second model alone got right.
    """
    trials = only_first + only_second
    return float(scipy_stats().binomtest(only_first, trials).pvalue) if trials else 1.0


def paired_difference(only_first: int, only_second: int, trials: int) -> Interval:
    """Compute the interval of the first model's accuracy minus the second's.

    Both models saw the same images. The interval is Wald's after one image is added for either
    model: D. G. Bonett and R. M. Price, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data", Journal of Educational and Behavioral Statistics 37
    (2012), 479-488. SciPy 1.15 has no interval for paired proportions,
    and statsmodels 0.15 has none for their difference.

    Args:
        only_first: Number of images that the first model alone got right.
        only_second: Number of images that the second model alone got right.
        trials: Number of all images.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    first, second = (only_first + 1) / (trials + 2), (only_second + 1) / (trials + 2)
    centre = first - second
    half = z * math.sqrt((first + second - centre**2) / (trials + 2))
    return Interval(max(-1.0, centre - half), min(1.0, centre + half))


def cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Compute the cosine of the angle between two models' logits, float32 of shape (classes,).

    Classes that a model rules out with a logit of minus infinity are left out. The result is 0 if
    nothing remains.
    """
    finite = np.isfinite(first) & np.isfinite(second)
    a, b = first[finite].astype(np.float64), second[finite].astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


def confusion_matrix(
    class_ids: Sequence[int], predicted: Sequence[int], classes: int
) -> NDArray[np.int64]:
    """Count the images of each class (row) by their predicted class (column).

    Args:
        class_ids: True class of each image.
        predicted: Predicted class of each image.
        classes: Number of classes.

    Returns:
        int64 of shape (classes, classes).
    """
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(class_ids, np.intp), np.asarray(predicted, np.intp)), 1)
    return matrix


def confusions(matrix: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """List the wrong answers, most frequent first: true class, predicted class, images."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    found = zip(rows.tolist(), columns.tolist(), wrong[rows, columns].tolist(), strict=True)
    return sorted(found, key=lambda each: (-each[2], each[0], each[1]))
