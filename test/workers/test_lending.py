"""Lending: the same thing to one task after the other, and never to two at once."""

import pytest

from efv2_ros.workers.lending import Lending

made = []


class Thing:
    def __init__(self, key):
        self.key, self.closed = key, False
        made.append(self)

    def close(self):
        assert not self.closed
        self.closed = True


@pytest.fixture
def lending():
    made.clear()
    return Lending(Thing)


def test_the_next_task_gets_the_same(lending):
    with lending("a") as first:
        pass
    with lending("a") as second:
        assert second is first
        with lending("a") as other:
            assert other is not first
    assert not any(each.closed for each in made)


def test_another_kind_replaces_those_that_are_free(lending):
    with lending("a") as first, lending("a"):
        pass
    with lending("b") as thing:
        assert thing.key == "b"
    assert [each.closed for each in made] == [True, True, False]
    with lending("a") as again:
        assert again is not first


def test_a_thing_whose_task_failed_is_not_lent_again(lending):
    with pytest.raises(ValueError, match="x"), lending("a") as first:
        raise ValueError("x")
    assert first.closed
    with lending("a") as second:
        assert second is not first
