import numpy as np
import pytest

from efv2_ros.classify.latency import LatencyWindow


def test_percentiles_are_milliseconds_of_the_recorded_seconds():
    window = LatencyWindow()
    for milliseconds in range(1, 101):
        window.record("infer", milliseconds / 1e3)
    infer = window.percentiles()["infer"]
    assert infer.p50 == pytest.approx(50.5)
    assert infer.p95 == pytest.approx(np.percentile(np.arange(1, 101), 95))
    assert infer.p99 == pytest.approx(np.percentile(np.arange(1, 101), 99))
    assert infer.max == 100
    assert str(infer) == "50.50 / 95.05 / 99.01 / 100.00"


def test_old_samples_leave_the_window():
    window = LatencyWindow(capacity=10)
    window.record("wait", 1000.0)
    for _ in range(10):
        window.record("wait", 0.001)
    assert window.percentiles()["wait"].max == pytest.approx(1.0)


def test_only_recorded_stages_are_reported_until_cleared():
    window = LatencyWindow()
    assert window.percentiles() == {}
    window.record("convert", 0.001)
    assert list(window.percentiles()) == ["convert"]
    window.clear()
    assert window.percentiles() == {}
