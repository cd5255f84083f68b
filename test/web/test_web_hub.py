"""What all viewers look at: each gets what it has not got yet, packed once, and nothing grows."""

import asyncio
import json
import struct

from efv2_ros.web.hub import MINUTE_S, TICK_S, Cursor, Hub, Interval, Report

CLASSES = (("tabby cat", 0.75), ("犬", 0.25))


class Source:
    """Reports what a test says."""

    def __init__(self):
        self.status = {"node": "/a"}
        self.cameras = {"": Interval(6, CLASSES, {"infer": 5.1234567})}
        self.watched = []

    def watch(self, on):
        self.watched.append(on)

    def collect(self):
        return Report(self.status, self.cameras)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def watched():
    source, clock = Source(), Clock()
    hub = Hub(source, clock)
    hub.enter()
    return hub, source, clock


def unpack(update):
    """The JSON of an update, and the files that come after it."""
    (size,) = struct.unpack_from(">I", update)
    text, rest = json.loads(update[4 : 4 + size]), update[4 + size :]
    jpegs = {}
    for camera in text["cameras"]:
        count = camera.get("jpeg", 0)
        jpegs[camera["name"]], rest = rest[:count], rest[count:]
    assert rest == b""
    return text, jpegs


def test_a_new_viewer_gets_everything():
    hub, _, clock = watched()
    hub.show("", b"first")
    hub.show("", b"newest")
    clock.now += TICK_S
    hub.tick()
    text, jpegs = unpack(hub.update(Cursor())[0])
    assert text["status"] == {"node": "/a"}
    assert jpegs == {"": b"newest"}
    (camera,) = text["cameras"]
    assert camera["classes"] == [["tabby cat", 0.75], ["犬", 0.25]]
    point = {"n": 6, "c": ["tabby cat", 0.75], "ms": {"infer": 5.123}}
    assert camera["points"] == [{"t": 0.0, **point}, {"t": TICK_S, **point}]
    assert text["now"] == TICK_S


def test_afterwards_it_gets_what_is_new():
    hub, source, clock = watched()
    hub.show("", b"old")
    _, seen = hub.update(Cursor())
    hub.show("", b"new")
    update, after = hub.update(seen)
    text, jpegs = unpack(update)
    assert text == {"now": 0.0, "cameras": [{"name": "", "jpeg": 3}]} and jpegs == {"": b"new"}
    source.status = {"node": "/b"}
    source.cameras = {"": Interval(0), "left": Interval(1, CLASSES)}
    clock.now += 1
    hub.tick()
    text, jpegs = unpack(hub.update(after)[0])
    assert text["status"] == {"node": "/b"}
    assert jpegs == {"": b"", "left": b""}
    assert [each["points"] for each in text["cameras"]] == [
        [{"t": 1.0, "n": 0}],
        [{"t": 1.0, "n": 1, "c": ["tabby cat", 0.75]}],
    ]
    assert text["cameras"][0]["classes"] == [["tabby cat", 0.75], ["犬", 0.25]]


def test_viewers_that_are_equally_far_share_one_packing():
    hub, _, _ = watched()
    hub.show("", b"x" * 100)
    _, seen = hub.update(Cursor())
    hub.show("", b"y" * 100)
    assert hub.update(seen)[0] is hub.update(seen)[0]
    assert hub.update(Cursor())[0] is not hub.update(seen)[0]


def test_a_viewer_that_is_far_behind_gets_the_last_minute_and_the_newest_picture():
    hub, _, clock = watched()
    _, seen = hub.update(Cursor())
    for _ in range(3 * round(MINUTE_S / TICK_S)):
        clock.now += TICK_S
        hub.show("", b"z" * 1000)
        hub.tick()
    update, _ = hub.update(seen)
    text, jpegs = unpack(update)
    assert jpegs == {"": b"z" * 1000}
    points = text["cameras"][0]["points"]
    assert 299 <= len(points) <= 300
    assert points[0]["t"] > text["now"] - MINUTE_S
    assert len(update) < 40_000


def test_old_points_are_left_out_however_few_there_are():
    hub, _, clock = watched()
    clock.now += 2 * MINUTE_S
    hub.tick()
    text, _ = unpack(hub.update(Cursor())[0])
    assert [each["t"] for each in text["cameras"][0]["points"]] == [2 * MINUTE_S]


def test_the_source_is_watched_while_somebody_looks():
    hub, source, _ = watched()
    hub.enter()
    hub.show("", b"picture")
    hub.leave()
    assert source.watched == [True]
    hub.leave()
    assert source.watched == [True, False]
    hub.show("", b"late")  # nobody looks
    hub.enter()
    assert source.watched == [True, False, True]
    _, jpegs = unpack(hub.update(Cursor())[0])
    assert jpegs == {"": b""}  # an old picture would pass for a live one


def test_pictures_of_cameras_that_are_not_known_are_left_out():
    hub, source, _ = watched()
    hub.show("other", b"?")
    source.cameras = {"left": Interval(0)}
    hub.tick()
    text, jpegs = unpack(hub.update(Cursor())[0])
    assert jpegs == {"left": b""}
    assert [each["name"] for each in text["cameras"]] == ["left"]


def test_waiting_ends_when_there_is_news():
    async def wait():
        hub, _, _ = watched()
        _, seen = hub.update(Cursor())
        waiting = [asyncio.ensure_future(hub.changed(seen)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not any(each.done() for each in waiting)
        hub.show("", b"picture")
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        await asyncio.wait_for(hub.changed(seen), 5)

    asyncio.run(wait())
