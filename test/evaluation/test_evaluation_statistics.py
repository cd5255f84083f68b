"""Intervals and tests against published values, and what counts as a confusion."""

import math

import numpy as np
import pytest

from efv2_ros.evaluation.statistics import (
    confusion_matrix,
    confusions,
    cosine,
    mcnemar,
    paired_difference,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5.1e-5)
    mirrored = wilson(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5.1e-5)


def test_wilson_stays_within_0_and_1():
    for trials in range(1, 300):
        low, high = wilson(0, trials).low, wilson(trials, trials).high
        assert 0.0 <= low < 1e-15
        assert 1.0 - 1e-15 < high <= 1.0


@pytest.mark.parametrize(
    ("only_first", "only_second", "trials", "low", "high", "p"),
    [  # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), 2850-2875: its examples
        (1, 7, 21, -0.5084, -0.0134, 0.0703),
        (6, 16, 161, -0.1195, -0.0032, 0.0525),
    ],
)
def test_a_paired_difference(only_first, only_second, trials, low, high, p):
    interval = paired_difference(only_first, only_second, trials)
    assert interval == pytest.approx((low, high), abs=5.1e-5)
    assert mcnemar(only_first, only_second) == pytest.approx(p, abs=5.1e-5)
    mirrored = paired_difference(only_second, only_first, trials)
    assert mirrored == pytest.approx((-high, -low), abs=5.1e-5)
    assert mcnemar(only_second, only_first) == mcnemar(only_first, only_second)


def test_mcnemar_of_no_difference_and_of_many_images():
    assert mcnemar(0, 0) == mcnemar(4, 4) == mcnemar(4, 5) == 1.0
    assert mcnemar(0, 10) == 2 / 1024
    assert mcnemar(0, 5000) == 0.0
    # The normal approximation with continuity correction is good to two digits here.
    z = (2600 - 2400 - 1) / math.sqrt(5000)
    assert mcnemar(2400, 2600) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)


def test_cosine():
    a = np.array([1.0, 2.0, 3.0], np.float32)
    assert cosine(a, 5 * a) == pytest.approx(1.0)
    assert cosine(a, -a) == pytest.approx(-1.0)
    assert cosine(a, np.array([3.0, 0.0, -1.0], np.float32)) == pytest.approx(0.0)
    assert cosine(a, np.array([1.0, 0.0, 0.0], np.float32)) == pytest.approx(1 / math.sqrt(14))
    assert cosine(a, np.zeros(3, np.float32)) == 0.0
    ruled_out = np.array([1.0, 2.0, -np.inf], np.float32)
    assert cosine(a, ruled_out) == pytest.approx(1.0)


def test_confusions_are_the_wrong_answers_by_how_often():
    class_ids, predicted = [0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 1, 1, 1, 0, 2, 0, 1, 1]
    matrix = confusion_matrix(class_ids, predicted, 3)
    np.testing.assert_array_equal(matrix, [[1, 2, 0], [1, 1, 0], [1, 2, 1]])
    assert confusions(matrix) == [(0, 1, 2), (2, 1, 2), (1, 0, 1), (2, 0, 1)]
    assert confusions(np.eye(4, dtype=np.int64)) == []
