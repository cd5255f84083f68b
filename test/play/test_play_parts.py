"""Parts of live replay: schedule, images in flight, reading ahead, QoS, `ros2 bag play`."""

import math
import threading
import time

import pytest

from efv2_ros.bags.salvage import Message
from efv2_ros.play.in_flight import InFlight
from efv2_ros.play.read_ahead import ReadAhead
from efv2_ros.play.schedule import Schedule

SECOND = 10**9
SOON = 60.0  # seconds: only reached when something is broken


# Schedule


def test_messages_are_due_by_their_distance_from_the_first():
    schedule = Schedule(rate=2.0)
    schedule.start(100 * SECOND, now_s=7.0)
    assert schedule.due(100 * SECOND) == 7.0
    assert schedule.due(103 * SECOND) == 8.5
    assert schedule.log_time(8.5) == 103 * SECOND


def test_lateness_does_not_add_up():
    schedule = Schedule(rate=1.0)
    schedule.start(0, now_s=0.0)
    for number in range(1000):
        schedule.sent(number * SECOND, now_s=number + 0.25)
    assert schedule.max_lateness_s == 0.25
    assert schedule.due(1000 * SECOND) == 1000.0


def test_what_is_held_up_makes_the_rest_later():
    schedule = Schedule(rate=1.0)
    schedule.start(0, now_s=0.0)
    schedule.hold(3.0)
    assert schedule.due(5 * SECOND) == 8.0
    assert schedule.log_time(8.0) == 5 * SECOND
    schedule.sent(5 * SECOND, now_s=8.0)
    assert schedule.max_lateness_s == 0.0


def test_as_fast_as_it_goes_everything_is_due_and_time_does_not_run():
    schedule = Schedule(rate=math.inf)
    schedule.start(5 * SECOND, now_s=1.0)
    assert schedule.due(3600 * SECOND) == 1.0
    assert schedule.log_time(100.0) == 5 * SECOND
    schedule.sent(6 * SECOND, now_s=100.0)
    assert schedule.max_lateness_s == 0.0


# Images in flight


def test_a_result_makes_room():
    flow = InFlight(2)
    flow.sent(10)
    assert flow.has_room
    flow.sent(11)
    assert (len(flow), flow.has_room, flow.oldest) == (2, False, 10)
    flow.result(10)
    assert (len(flow), flow.has_room, flow.oldest) == (1, True, 11)
    flow.result(99)  # of an image that somebody else sent
    assert len(flow) == 1
    flow.result(11)
    assert (len(flow), flow.oldest) == (0, None)


def test_a_drop_is_known_from_the_counts():
    flow = InFlight(1)
    flow.sent(10)
    flow.counted(1)
    assert flow.has_room
    flow.sent(11)
    flow.counted(1)  # the same report once more
    assert (flow.has_room, flow.oldest) == (False, 11)
    flow.result(11)
    assert flow.has_room
    flow.sent(None)
    flow.counted(2)
    assert (flow.has_room, flow.oldest, flow.answered) == (False, None, 2)


def test_a_drop_is_known_from_the_result_of_a_later_image():
    flow = InFlight(3)
    for stamp in (10, None, 12):
        flow.sent(stamp)
    flow.result(12)
    assert len(flow) == 0
    flow.counted(1)  # a report that was on its way for long
    assert len(flow) == 0


def test_a_result_that_got_lost_holds_nothing_up():
    flow = InFlight(1)
    flow.sent(10)
    flow.counted(1)
    assert flow.has_room
    for stamp in range(11, 20):
        flow.sent(stamp)
        assert not flow.has_room
        flow.result(stamp)
        assert flow.has_room


def test_a_result_may_come_after_the_count_of_it():
    flow = InFlight(1)
    for stamp in range(10):
        flow.sent(stamp)
        flow.counted(stamp + 1)
        assert flow.has_room
    flow.sent(10)
    for stamp in range(10):
        flow.result(stamp)
        assert (flow.has_room, flow.oldest) == (False, 10)
    flow.result(10)
    assert flow.has_room


def test_images_of_one_stamp_each_need_a_result():
    flow = InFlight(3)
    for _ in range(3):
        flow.sent(7)
    flow.result(7)
    flow.result(7)
    assert len(flow) == 1


def test_a_stamp_may_come_again():
    flow = InFlight(1)
    flow.sent(7)
    flow.counted(1)  # it was dropped
    flow.sent(8)
    flow.result(8)
    flow.sent(7)
    assert not flow.has_room
    flow.result(7)
    assert flow.has_room


def test_images_that_are_dropped_in_a_row_take_no_memory():
    flow = InFlight(1)
    for number in range(5000):
        flow.sent(number)
        flow.counted(number + 1)
    assert len(flow._unanswered) <= 1001
    flow.sent(5000)
    flow.result(5000)
    assert flow.has_room
    assert not flow._unanswered


# Reading ahead


class Reading:
    """Messages that tell which were read, by which thread they were closed, and may fail."""

    def __init__(self, count, size=10, error=None):
        self.read, self.closed_by = [], None
        self._count, self._size, self._error = count, size, error

    def messages(self):
        try:
            for number in range(self._count):
                self.read.append(number)
                yield Message("/t", "T", number, bytes(self._size))
            if self._error is not None:
                raise self._error
        finally:
            self.closed_by = threading.current_thread().name


def wait_until_ready(ahead):
    end = time.monotonic() + SOON
    while not ahead.ready:
        assert time.monotonic() < end
        time.sleep(0.001)


def read_ahead(reading, **options):
    return ReadAhead(lambda should_stop: reading.messages(), **options)


def test_messages_come_in_order_and_end():
    with read_ahead(Reading(500)) as ahead:
        wait_until_ready(ahead)
        assert ahead.first().log_time == 0
        taken = []
        while not ahead.ended:
            message = ahead.take(1.0)
            if message is not None:
                taken.append(message.log_time)
        assert ahead.first() is None
        assert ahead.take(1.0) is None
    assert taken == list(range(500))


def test_what_waits_is_bounded_and_large_messages_still_come():
    reading = Reading(100, size=1000)
    with read_ahead(reading, max_bytes=3500) as ahead:
        for number in range(50):
            assert ahead.take(10.0).log_time == number
            # Taken ones, three that wait, one that is held.
            assert len(reading.read) <= number + 1 + 3 + 1
    assert reading.closed_by == "read-ahead"
    assert len(reading.read) < 100
    with read_ahead(Reading(3, size=1000), max_bytes=10) as ahead:
        assert [ahead.take(10.0).log_time for _ in range(3)] == [0, 1, 2]


def test_an_error_comes_after_what_was_read_before_it():
    with read_ahead(Reading(2, error=OSError("gone"))) as ahead:
        assert [ahead.take(10.0).log_time for _ in range(2)] == [0, 1]
        with pytest.raises(OSError, match="gone"):
            ahead.take(10.0)
        with pytest.raises(OSError, match="gone"):
            ahead.first()


# QoS


def recorded(**changes):
    interfaces = pytest.importorskip("rosbags.interfaces")
    time = interfaces.QosTime(0, 0)
    qos = interfaces.Qos(
        interfaces.QosHistory.UNKNOWN, 0, interfaces.QosReliability.BEST_EFFORT,
        interfaces.QosDurability.VOLATILE, time, time, interfaces.QosLiveliness.AUTOMATIC, time,
        False,
    )  # fmt: skip
    kinds = {
        "history": interfaces.QosHistory, "reliability": interfaces.QosReliability,
        "durability": interfaces.QosDurability, "liveliness": interfaces.QosLiveliness,
    }  # fmt: skip
    values = {
        key: kinds[key][value.upper()] if key in kinds else value for key, value in changes.items()
    }
    return qos._replace(**values)


def seconds(number):
    return pytest.importorskip("rosbags.interfaces").QosTime(number, 0)


def offered(*profiles, **options):
    pytest.importorskip("rclpy")
    from efv2_ros.play.qos import publisher_qos

    qos = publisher_qos(profiles, **options)
    return {
        "history": qos.history.short_key, "depth": qos.depth,
        "reliability": qos.reliability.short_key, "durability": qos.durability.short_key,
        "liveliness": qos.liveliness.short_key, "deadline": qos.deadline.nanoseconds,
        "lifespan": qos.lifespan.nanoseconds, "lease": qos.liveliness_lease_duration.nanoseconds,
    }  # fmt: skip


FOREVER = (1 << 63) - 1
PLAIN = {
    "history": "keep_last", "depth": 10, "reliability": "reliable", "durability": "volatile",
    "liveliness": "automatic", "deadline": FOREVER, "lifespan": FOREVER, "lease": FOREVER,
}  # fmt: skip


def test_a_topic_is_offered_as_it_was_recorded():
    assert offered() == PLAIN
    assert offered(recorded()) == PLAIN | {"reliability": "best_effort"}
    assert offered(
        recorded(
            history="keep_last", depth=3, reliability="reliable", durability="transient_local",
            liveliness="manual_by_topic", deadline=seconds(2), lifespan=seconds(3),
            liveliness_lease_duration=seconds(4),
        )
    ) == {
        "history": "keep_last", "depth": 3, "reliability": "reliable",
        "durability": "transient_local", "liveliness": "manual_by_topic",
        "deadline": 2 * SECOND, "lifespan": 3 * SECOND, "lease": 4 * SECOND,
    }  # fmt: skip
    assert offered(recorded(history="keep_all"))["history"] == "keep_all"


@pytest.mark.parametrize("value", ["unknown", "system_default"])
def test_what_is_not_known_is_what_serves_most(value):
    policies = ("history", "reliability", "durability", "liveliness")
    assert offered(recorded(**dict.fromkeys(policies, value))) == PLAIN


def test_of_several_publishers_each_policy_is_the_one_that_serves_all():
    first = recorded(history="keep_last", depth=2, deadline=seconds(5), lifespan=seconds(1))
    second = recorded(
        history="keep_last", depth=7, reliability="reliable", durability="transient_local",
        liveliness="manual_by_node", deadline=seconds(3), lifespan=seconds(9),
        liveliness_lease_duration=seconds(8),
    )  # fmt: skip
    expected = {
        "history": "keep_last", "depth": 7, "reliability": "reliable",
        "durability": "transient_local", "liveliness": "manual_by_topic",
        "deadline": 3 * SECOND, "lifespan": 9 * SECOND, "lease": 8 * SECOND,
    }  # fmt: skip
    assert offered(first, second) == offered(second, first) == expected
    assert offered(first, recorded(deadline=seconds(5)))["lifespan"] == FOREVER


def test_lossless_is_reliable_and_keeps_everything():
    found = offered(recorded(lifespan=seconds(1), deadline=seconds(2)), lossless=True)
    assert found == PLAIN | {"history": "keep_all", "deadline": 2 * SECOND}


# ros2 bag play


def ros2_bag(path, **options):
    pytest.importorskip("rclpy")
    from efv2_ros.bags.bag import Topic
    from efv2_ros.play.qos import published_topics
    from efv2_ros.play.ros2_bag import Ros2Bag

    topics = [
        Topic("/image", "sensor_msgs/msg/Image", 9, (recorded(),)),
        Topic("/map", "std_msgs/msg/String", 1, (recorded(durability="transient_local"),)),
    ]
    published = published_topics(topics, {"/image": "front"}, lossless=True)
    return Ros2Bag(None, path, published, **options)


def test_ros2_bag_play_is_given_options_that_humble_knows(tmp_path):
    bag = ros2_bag(tmp_path, rate=0.5, clock_rate_hz=100.0)
    assert bag.command("qos.yaml") == [
        "ros2", "bag", "play", str(tmp_path), "--disable-keyboard-controls", "--rate", "0.5",
        "--delay", "2", "--wait-for-all-acked", "5000", "--qos-profile-overrides-path", "qos.yaml",
        "--clock", "100", "--topics", "/image", "/map", "--remap", "/image:=/front",
    ]  # fmt: skip


def test_ros2_bag_play_of_a_file_is_told_its_storage(tmp_path):
    file = tmp_path / "a.db3"
    command = ros2_bag(file, rate=1.0, clock_rate_hz=0.0).command("qos.yaml")
    assert command[3:6] == [str(file), "--disable-keyboard-controls", "--storage"]
    assert command[6] == "sqlite3"
    assert "--clock" not in command


def test_ros2_bag_play_offers_images_so_that_none_is_lost(tmp_path):
    yaml = pytest.importorskip("yaml")
    profiles = yaml.safe_load(ros2_bag(tmp_path, rate=1.0, clock_rate_hz=0.0).qos_overrides())
    forever = {"sec": 9223372036, "nsec": 854775807}
    common = {
        "liveliness": "automatic", "deadline": forever, "lifespan": forever,
        "liveliness_lease_duration": forever,
    }  # fmt: skip
    assert profiles == {
        "/image": {
            "history": "keep_all", "reliability": "reliable", "durability": "volatile", **common,
        },
        "/map": {
            "history": "keep_last", "depth": 10, "reliability": "best_effort",
            "durability": "transient_local", **common,
        },
    }  # fmt: skip
