"""Smoothing over time: averages and votes by stamps."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efv2_ros.classify.postprocess import TopK
from efv2_ros.classify.smoothing import MovingAverage, Vote, smoother

SECOND = 1_000_000_000


def logits(*scores):
    """Logits whose softmax are these scores."""
    return np.log(np.array(scores, np.float32))


def scores(of):
    exponentials = np.exp(of.astype(np.float64))
    return exponentials / exponentials.sum()


def flicker(count, rate=30.0, every=4):
    """A stream that shows class 0, with class 1 a little ahead in each `every`-th image."""
    for number in range(count):
        wrong = number % every == every - 1
        yield logits(*((0.4, 0.5, 0.1) if wrong else (0.7, 0.2, 0.1))), round(number / rate * 1e9)


def best_classes(smooth, stream):
    top_k = TopK(3, 1)
    return [top_k(smooth(*each)).class_ids[0] for each in stream]


def changes(classes):
    return sum(a != b for a, b in pairwise(classes))


@pytest.mark.parametrize("kind", ["ema", "vote"])
def test_a_best_class_that_flickers_is_steady(kind):
    raw = [int(each.argmax()) for each, _ in flicker(120)]
    assert changes(raw) == 59
    assert set(best_classes(smoother(kind, 0.5), flicker(120))) == {0}


@pytest.mark.parametrize("kind", ["ema", "vote"])
def test_a_lasting_change_is_followed_within_the_time_constant(kind):
    smooth = smoother(kind, 0.5)
    stream = [(logits(0.9, 0.1), n * SECOND // 20) for n in range(20)]
    stream += [(logits(0.1, 0.9), n * SECOND // 20) for n in range(20, 40)]
    classes = [int(smooth(*each).argmax()) for each in stream]
    changed = classes.index(1)
    assert 22 <= changed <= 30, "neither at once nor after more than half a second"
    assert changes(classes) == 1


def test_off_makes_nothing():
    assert smoother("off", 0.5) is None


@given(st.lists(st.floats(0.001, 2), min_size=1, max_size=20))
def test_the_average_is_the_weighted_mean_whatever_the_rate(gaps):
    """Against the sum that the definition gives, at irregular stamps."""
    random = np.random.default_rng(0)
    smooth, stamp, expected = MovingAverage(0.5), 0, None
    for gap in [0.0, *gaps]:
        stamp += round(gap * 1e9)
        own = random.dirichlet((1, 1, 1))
        kept = math.exp(-gap / 0.5)
        expected = own if expected is None else kept * expected + (1 - kept) * own
        said = smooth(np.log(own).astype(np.float32), stamp)
        assert said.dtype == np.float32
        assert np.allclose(scores(said), expected, atol=1e-5)


@pytest.mark.parametrize("later", [-SECOND, 0, 6 * SECOND])
@pytest.mark.parametrize("make", [MovingAverage, Vote])
def test_a_gap_or_a_stamp_that_is_not_later_begins_anew(make, later):
    smooth = make(1.0)
    for number in range(5):
        smooth(logits(0.1, 0.9), 10 * SECOND + number)
    said = scores(smooth(logits(0.8, 0.2), 10 * SECOND + 4 + later))
    assert np.allclose(said, (1, 0) if make is Vote else (0.8, 0.2), atol=1e-6)


def test_votes_count_by_their_time_and_scores_are_their_shares():
    smooth = Vote(1.0)
    for number, winner in enumerate([0, 1, 1]):
        said = smooth(np.eye(3, dtype=np.float32)[winner], number * SECOND // 2)
    assert np.allclose(scores(said), (1 / 3, 2 / 3, 0))
    said = smooth(np.eye(3, dtype=np.float32)[2], 3 * SECOND // 2)  # the first is too old
    assert np.allclose(scores(said), (0, 2 / 3, 1 / 3))
    assert TopK(3, 5)(said).scores == pytest.approx((2 / 3, 1 / 3, 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("make", [MovingAverage, Vote])
def test_logits_that_are_no_numbers_are_left_to_the_top_k_and_do_not_count(make, bad):
    smooth = make(1.0)
    smooth(logits(0.9, 0.1), SECOND)
    wrong = np.array([bad, 0], np.float32)
    assert smooth(wrong, SECOND + 1) is wrong
    with pytest.raises(ValueError, match="not finite"):
        TopK(2)(wrong)
    assert smooth(logits(0.9, 0.1), SECOND + 2).argmax() == 0


@pytest.mark.parametrize("make", [MovingAverage, Vote])
def test_a_class_that_is_ruled_out_stays_so(make):
    said = make(1.0)(np.array([-np.inf, 1, 0], np.float32), SECOND)
    assert said[0] == -np.inf


def test_the_given_logits_are_not_changed():
    smooth = MovingAverage(1.0)
    given_logits = logits(0.9, 0.1)
    before = given_logits.copy()
    for stamp in (1, 2):
        smooth(given_logits, stamp)
    assert np.array_equal(given_logits, before)
