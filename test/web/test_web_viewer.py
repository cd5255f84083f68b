"""One viewer: what it has under way, and when its updates end."""

import asyncio
import time

import pytest

from efv2_ros.web.hub import Hub, Report
from efv2_ros.web.viewer import Viewer

SOON = 20.0  # seconds: only reached when something is broken


class Source:
    def watch(self, on):
        pass

    def collect(self):
        return Report({}, {})


async def ended(send, **options):
    """Run a viewer of a hub that has news all the time, until it ends; how long that took."""
    hub = Hub(Source())
    hub.enter()
    viewer = Viewer(hub, send, period_s=0.001, **options)

    async def tick():
        while True:
            hub.tick()
            await asyncio.sleep(0.001)

    ticking = asyncio.ensure_future(tick())
    begin = time.monotonic()
    await asyncio.wait_for(viewer.run(), SOON)
    ticking.cancel()
    return viewer, time.monotonic() - begin


def test_it_ends_without_confirmations():
    sent = []

    async def send(update):
        sent.append(update)

    _, duration = asyncio.run(ended(send, patience_s=0.3))
    assert len(sent) == 2 and duration >= 0.3


def test_it_ends_when_nothing_can_be_sent_any_more():
    async def send(update):
        await asyncio.Event().wait()

    _, duration = asyncio.run(ended(send, patience_s=0.3))
    assert duration >= 0.3


@pytest.mark.parametrize("error", [ConnectionResetError("closing"), BrokenPipeError()])
def test_it_ends_when_the_browser_has_gone(error):
    async def send(update):
        raise error

    viewer, _ = asyncio.run(ended(send, patience_s=SOON))
    assert viewer.confirm() and not viewer.confirm()


def test_only_what_is_under_way_can_be_confirmed():
    async def send(update):
        pass

    viewer, _ = asyncio.run(ended(send, patience_s=0.1))
    assert [viewer.confirm() for _ in range(3)] == [True, True, False]
