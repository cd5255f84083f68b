"""Softmax and top-k."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from efv2_ros.classify.postprocess import TopK


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return exponentials / exponentials.sum()


@given(
    arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e4, 1e4, width=32)),
    st.sampled_from([1, 2, 5, 31, 32, 33, 50]),
    st.floats(0, 1),
)
def test_equals_a_full_sort(logits, k, threshold):
    """Float32 arithmetic leaves seven digits; scores near the threshold may fall either side."""
    scores = softmax(logits)
    best = sorted(range(len(logits)), key=lambda index: (-logits[index], index))[:k]
    everything = TopK(len(logits), k)(logits)
    assert list(everything.class_ids) == best
    assert np.allclose(everything.scores, scores[best], rtol=1e-5, atol=1e-7)
    assert all(0 <= score <= 1 for score in everything.scores)
    some = TopK(len(logits), k, threshold)(logits)
    assert some.class_ids == everything.class_ids[: len(some.class_ids)]
    assert all(score >= threshold - 1e-7 for score in some.scores)
    assert all(score < threshold + 1e-7 for score in everything.scores[len(some.scores) :])


@pytest.mark.numpy2
def test_known_values_and_plain_types():
    prediction = TopK(4, 2)(np.log(np.array([1, 4, 2, 1], np.float32)))
    assert prediction.class_ids == (1, 2)
    assert prediction.scores == pytest.approx((0.5, 0.25))
    assert {type(each) for each in prediction.class_ids} == {int}
    assert {type(each) for each in prediction.scores} == {float}


@pytest.mark.numpy2
def test_equal_logits_come_in_order_of_id():
    logits = np.zeros(1000, np.float32)
    assert TopK(1000, 5)(logits).class_ids == (0, 1, 2, 3, 4)
    logits[[700, 3, 999]] = 1
    assert TopK(1000, 4)(logits).class_ids == (3, 700, 999, 0)


def test_the_buffer_leaves_no_trace_and_the_logits_stay():
    top_k = TopK(1000, 5)
    random = np.random.default_rng(0)
    for _ in range(5):
        logits = random.normal(0, 4, 1000).astype(np.float32)
        before = logits.copy()
        assert top_k(logits) == TopK(1000, 5)(logits)
        assert np.array_equal(logits, before)


@pytest.mark.filterwarnings("error")
def test_huge_logits_do_not_overflow():
    assert TopK(3, 3)(np.array([3e38, -3e38, 0], np.float32)).scores == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite(bad):
    logits = np.zeros(10, np.float32)
    logits[7] = bad
    with pytest.raises(ValueError, match="not finite"):
        TopK(10)(logits)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_minus_infinity_rules_a_class_out(k):
    logits = np.full(5, -np.inf, np.float32)
    logits[[3, 1]] = 2
    prediction = TopK(5, k)(logits)
    assert prediction.class_ids == (1, 3, 0, 2, 4)[:k]
    assert prediction.scores == (0.5, 0.5, 0, 0, 0)[:k]
    with pytest.raises(ValueError, match="not finite"):
        TopK(5, k)(np.full(5, -np.inf, np.float32))


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"\(10,\)"):
        TopK(10)(np.zeros((1, 10), np.float32))


@pytest.mark.parametrize("arguments", [(0, 5), (10, 0), (10, 5, -0.1), (10, 5, 1.1)], ids=str)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        TopK(*arguments)
