import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import HistoryPolicy, ReliabilityPolicy

from efv2_ros.classify.classifier import Classified
from efv2_ros.client.status import values
from efv2_ros.node.diagnostics import StreamStatus
from efv2_ros.node.options import Settings
from efv2_ros.node.statistics import Statistics, stage_durations
from efv2_ros.node.subscription import image_qos

SECOND = 10**9


@pytest.fixture
def stream():
    """Ten seconds of a 1 Hz stream, of which every other image was superseded."""
    statistics = Statistics()
    for n in range(1, 11):
        statistics.count_received(n * SECOND)
        if n % 2:
            statistics.count_classified(n * SECOND, {})
        else:
            statistics.count_dropped("superseded")
    return statistics


def test_rates_count_what_came_and_what_went(stream):
    status = StreamStatus(stream, lambda: "active", lambda: 3.0).run(10 * SECOND)
    assert status.level == DiagnosticStatus.OK  # superseding is what `latest` is for
    assert values(status)["input rate (Hz)"] == "1.00"
    assert values(status)["output rate (Hz)"] == "0.50"
    assert values(status)["dropped: superseded"] == "5"


def test_new_failures_warn_until_they_are_old(stream):
    task = StreamStatus(stream, lambda: "active", lambda: 3.0)
    task.run(10 * SECOND)
    stream.count_dropped("decode")
    assert task.run(10 * SECOND).level == DiagnosticStatus.WARN
    assert task.run(10 * SECOND).level == DiagnosticStatus.OK


def test_end_to_end_is_left_out_where_the_clocks_disagree():
    outcome = Classified(None, None, convert=0.2, infer=0.3, postprocess=0.4)
    own = {"wait": 0.1, "convert": 0.2, "infer": 0.3, "postprocess": 0.4, "publish": 0.5}

    def durations(now, stamp):
        return stage_durations(outcome, 0.1, 0.5, now * SECOND, stamp * SECOND)

    assert durations(12, 10) == {**own, "end_to_end": 2.0}
    assert durations(12, 0) == own  # no stamp
    assert durations(9, 10) == own


@pytest.mark.parametrize("restart", [1005, 1009, 990])
def test_time_that_goes_back_is_no_silence(restart):
    """A bag that is played again: the time in between never was."""
    statistics = Statistics()
    task = StreamStatus(statistics, lambda: "active", lambda: 3.0)
    task.run(1000 * SECOND)
    for second in range(1001, 1011):
        statistics.count_received(second * SECOND)
    assert task.run(1010 * SECOND).level == DiagnosticStatus.OK
    assert task.run(restart * SECOND).level == DiagnosticStatus.OK
    assert task.run((restart + 2) * SECOND).level == DiagnosticStatus.OK
    assert task.run((restart + 4) * SECOND).level == DiagnosticStatus.STALE
    # The images of the time before do not count, even where their time comes again.
    assert task.run((restart + 6) * SECOND).level == DiagnosticStatus.STALE
    statistics.count_received((restart + 7) * SECOND)
    assert task.run((restart + 8) * SECOND).level == DiagnosticStatus.OK


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "disabled", "finalized"])
def test_silence_is_stale_only_where_images_are_expected(stream, state):
    states = iter(["active", "active", state])
    task = StreamStatus(stream, lambda: next(states), lambda: 3.0)
    assert task.run(10 * SECOND).level == DiagnosticStatus.OK
    assert task.run(14 * SECOND).level == DiagnosticStatus.STALE
    status = task.run(100 * SECOND)
    assert (status.level, status.message) == (DiagnosticStatus.OK, state)


def test_the_rate_of_a_stream_that_stopped_decays(stream):
    task = StreamStatus(stream, lambda: "active", lambda: 1000.0)
    rates = [
        float(values(task.run(second * SECOND))["input rate (Hz)"]) for second in (10, 15, 18, 30)
    ]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0


def test_the_qos_follows_the_queue_policy():
    def qos(**settings):
        profile = image_qos(Settings(**settings))
        return profile.reliability, profile.history, profile.depth

    best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
    last, everything = HistoryPolicy.KEEP_LAST, HistoryPolicy.KEEP_ALL
    assert qos() == (best_effort, last, 1)
    assert qos(queue_policy="all")[:2] == (reliable, everything)
    assert qos(queue_policy="all", qos_reliability="best_effort", qos_depth=7) == (
        best_effort, last, 7,
    )  # fmt: skip
    assert qos(qos_reliability="reliable") == (reliable, last, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_k", 0), ("score_threshold", 1.5), ("slots", 33), ("stale_after", 0.0)],
)
def test_settings_keep_to_their_ranges(name, value):
    with pytest.raises(ValueError, match=name):
        Settings.of({name: value})
