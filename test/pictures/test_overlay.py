"""The layout of what viewers draw over a picture."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efv2_ros.pictures.overlay import overlay
from efv2_ros.vision.seen import Seen

LINES = [" 72.1% great white shark", "  3.0% tench", "  0.1% chaise longue"]


def whole(width, height):
    return Seen(width, height, 0, 0, width, height)


def test_lines_are_stacked_from_the_upper_left_corner():
    drawn = overlay(whole(640, 480), LINES)
    assert [label.text for label in drawn.labels] == LINES
    assert drawn.font_size == 480 / 20
    assert [label.x for label in drawn.labels] == [12, 12, 12]
    # Each box is as high as the font: they touch, and none hides another.
    assert [label.y for label in drawn.labels] == [36, 60, 84]


@given(
    st.tuples(st.integers(1, 8000), st.integers(1, 8000)),
    st.lists(st.text(max_size=60), max_size=100),
)
def test_every_line_stays_within_the_picture(size, lines):
    drawn = overlay(whole(*size), lines)
    assert drawn.font_size > 0
    for label in drawn.labels:
        assert label.x + 0.6 * drawn.font_size * len(label.text) <= size[0] + 1e-6
        assert drawn.font_size <= label.y <= size[1] + 1e-6


def test_many_lines_are_small():
    drawn = overlay(whole(640, 480), [str(number) for number in range(50)])
    assert drawn.font_size == 480 / 51
    assert drawn.labels[-1].y < 480


def test_wide_characters_take_the_room_of_two():
    narrow = overlay(whole(100, 1000), ["x" * 20]).font_size
    wide = overlay(whole(100, 1000), ["\u91d1\u9c7c" * 5]).font_size
    assert wide == narrow == pytest.approx(100 / (21 * 0.6))
    assert overlay(whole(100, 1000), ["x" * 10]).font_size > narrow


def test_what_the_network_sees_is_outlined():
    seen = Seen(2000, 1000, 500.5, 10, 1500, 990)
    drawn = overlay(seen, LINES)
    assert drawn.outline == ((500.5, 10), (1500, 10), (1500, 990), (500.5, 990))
    assert drawn.thickness == 8
    assert overlay(whole(2000, 1000), LINES).outline == ()
    assert overlay(Seen(30, 20, 5, 5, 20, 20), []).thickness == 1


def test_without_lines_nothing_is_written():
    drawn = overlay(whole(640, 480), [])
    assert (drawn.labels, drawn.outline) == ((), ())
