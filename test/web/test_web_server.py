"""The web server with real connections: who is let in, what each gets, and who waits for whom."""

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
from concurrent.futures import Future

import pytest

pytest.importorskip("aiohttp")

import aiohttp

from efv2_ros.web import connections, server
from efv2_ros.web.hub import ControlError, Hub, Interval, Report
from efv2_ros.web.options import WebError, WebOptions
from efv2_ros.web.server import WebServer

SOON = 20.0  # seconds: only reached when something is broken
TOKEN = "correct horse"


class Source:
    """A classifier with one camera."""

    def __init__(self):
        self.is_watched = False
        self.changes = []
        self.answer = "done"

    def watch(self, on):
        self.is_watched = on

    def collect(self):
        return Report({"node": "/a"}, {"": Interval(1, (("cat", 0.5),))})

    def change(self, name, value):
        self.changes.append((name, value))
        future = Future()
        if isinstance(self.answer, Exception):
            future.set_exception(self.answer)
        elif self.answer is not None:
            future.set_result(self.answer)
        return future


class Served:
    """A running server, and a browser's side of it."""

    def __init__(self, options, patience_s):
        self.source = Source()
        self.hub = Hub(self.source)
        self.server = WebServer(options, self.hub, self.source, patience_s=patience_s)

    async def start(self):
        self.port = await self.server.start()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        # A jar that takes cookies of addresses, as a browser does.
        self.client = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        return self

    async def get(self, path="/", **options):
        async with self.client.get(self.url + path, **options) as response:
            return response.status, await response.text(), response.headers

    async def control(self, wanted, **options):
        options = {"json": wanted, **options} if wanted is not None else options
        async with self.client.post(f"{self.url}/control", **options) as response:
            return response.status, (await response.text()).strip()

    def look(self, **options):
        return self.client.ws_connect(f"{self.url}/live", **options)

    async def until(self, condition):
        end = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < end
            await asyncio.sleep(0.01)


def serving(work, *, patience_s=10.0, **options):
    """Run `work` with a server of its own."""

    async def run():
        served = await Served(WebOptions(port=0, **options), patience_s).start()
        try:
            await asyncio.wait_for(work(served), SOON)
        finally:
            await served.client.close()
            await served.server.close()

    asyncio.run(run())


async def receive(live):
    """The JSON and the picture of the next update."""
    message = await live.receive(SOON)
    assert message.type is aiohttp.WSMsgType.BINARY, message
    (size,) = struct.unpack_from(">I", message.data)
    return json.loads(message.data[4 : 4 + size]), message.data[4 + size :]


async def closed(live):
    """The reason for the connection's end."""
    async for _ in live:
        pass
    return live.close_code


# The page's files


def test_the_page_needs_nothing_from_elsewhere():
    async def work(served):
        for path, kind in (
            ("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"),
            ("/camera.js", "text/javascript"), ("/parts.js", "text/javascript"),
            ("/icon.svg", "image/svg+xml"),
        ):  # fmt: skip
            status, text, headers = await served.get(path)
            assert status == 200 and headers["Content-Type"].startswith(kind)
            assert not re.search(r"\w://(?!www\.w3\.org/2000/svg)|url\(|@import", text)
            policy = headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert f"connect-src 'self' ws://{served.host} wss://{served.host}; " in policy
            assert "unsafe" not in policy and "*" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
        assert (await served.get("/../setup.py"))[0] == 404
        assert (await served.get("/control"))[0] == 405

    serving(work)


# Who is let in


def test_a_page_with_a_token_opens_with_it_and_then_with_its_cookie():
    async def work(served):
        assert (await served.get())[0] == 401
        assert (await served.get("/?token=wrong"))[0] == 401
        assert (await served.get("/page.js"))[0] == 401
        for attempt in (served.look(), served.look(headers={"Authorization": "Bearer wrong"})):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await attempt
            assert refused.value.status == 401
        assert (await served.control({"enabled": True}))[0] == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(headers=bearer) as other:
            assert (await other.get(f"{served.url}/page.js")).status == 200
            assert (await other.get(f"{served.url}/")).status == 200
        status, text, headers = await served.get("/", params={"token": TOKEN})
        assert status == 200 and TOKEN not in text
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        assert (await served.get())[0] == 200
        async with served.look() as live:
            await receive(live)

    serving(work, token=TOKEN, allow_control=True)


def test_foreign_names_and_pages_are_refused():
    async def work(served):
        for path in ("/", "/live", "/control"):
            assert (await served.get(path, headers={"Host": "evil.example"}))[0] == 403
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{served.port + 1}"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await served.look(headers={"Origin": origin})
            assert refused.value.status == 403
            foreign = await served.control({"enabled": False}, headers={"Origin": origin})
            assert foreign[0] == 403
        assert served.source.changes == [] and not served.source.is_watched
        async with served.look(headers={"Origin": served.url}) as live:
            await receive(live)
        assert (await served.control({"enabled": False}, headers={"Origin": served.url}))[0] == 200

    serving(work, allow_control=True)


# Viewers


def test_a_viewer_gets_what_is_new_and_is_counted():
    async def work(served):
        assert not served.source.is_watched
        async with served.look() as live:
            update, picture = await receive(live)
            assert served.source.is_watched and served.hub.viewers == 1
            assert update["status"] == {"node": "/a"} and picture == b""
            assert update["cameras"][0]["classes"] == [["cat", 0.5]]
            await live.send_str("shown")
            served.hub.show("", b"a picture")
            while picture != b"a picture":
                update, picture = await receive(live)
                await live.send_str("shown")
            assert "status" not in update
        await served.until(lambda: not served.hub.viewers)
        assert not served.source.is_watched

    serving(work)


def test_a_viewer_gets_no_more_than_it_confirms_and_then_the_newest():
    async def work(served):
        async with served.look() as live:
            for number in range(50):
                served.hub.show("", f"picture {number}".encode())
                await asyncio.sleep(0.01)
            got = []
            for _ in range(2):
                got.append(await receive(live))
            with pytest.raises(asyncio.TimeoutError):
                await live.receive(0.5)

        async with served.look() as live:
            await receive(live)
            await receive(live)
            for number in range(50):
                served.hub.show("", f"later {number}".encode())
            await live.send_str("shown")
            assert (await receive(live))[1] == b"later 49"

    serving(work, fps=60.0)


def test_viewers_cost_one_packing_of_each_update(monkeypatch):
    packed = []
    pack = Hub._pack
    monkeypatch.setattr(Hub, "_pack", lambda hub, seen: packed.append(seen) or pack(hub, seen))
    monkeypatch.setattr(server, "TICK_S", 60.0)

    async def work(served):
        async with contextlib.AsyncExitStack() as stack:
            all_live = [await stack.enter_async_context(served.look()) for _ in range(10)]
            for live in all_live:
                await receive(live)
            await asyncio.sleep(0.2)
            packed.clear()
            served.hub.show("", b"one picture")
            for live in all_live:
                assert (await receive(live))[1] == b"one picture"
            assert len(packed) == 1

    serving(work)


def test_there_are_no_more_viewers_than_allowed(monkeypatch):
    monkeypatch.setattr(server, "MOST_VIEWERS", 3)

    async def work(served):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                live = await stack.enter_async_context(served.look())
                await receive(live)
            one_more = await served.look()
            message = await one_more.receive(SOON)
            assert (message.data, message.extra) == (1013, "3 viewers look already")
            assert served.hub.viewers == 3
            await live.close()
            await served.until(lambda: served.hub.viewers == 2)
            async with served.look() as another:
                await receive(another)

    serving(work)


@pytest.mark.parametrize("said", ["hello", "shown!", b"shown", "s" * 200])
def test_a_viewer_that_says_anything_else_is_let_go(said):
    async def work(served):
        live = await served.look()
        await receive(live)
        await (live.send_bytes(said) if isinstance(said, bytes) else live.send_str(said))
        assert await closed(live) in (1008, 1009)
        await served.until(lambda: not served.hub.viewers)

    serving(work)


def test_a_viewer_that_confirms_too_much_is_let_go():
    async def work(served):
        live = await served.look()
        await receive(live)
        for _ in range(5):
            await live.send_str("shown")
        assert await closed(live) == 1008

    serving(work, fps=0.5)


def test_a_viewer_that_shows_nothing_is_let_go_and_holds_up_nobody():
    """It reads everything and confirms nothing."""

    async def work(served):
        idle = await served.look()
        async with served.look() as live:
            begin = time.monotonic()
            while served.hub.viewers == 2:
                served.hub.show("", b"x" * 10_000)
                await receive(live)
                await live.send_str("shown")
            assert 0.4 < time.monotonic() - begin < SOON / 2
            await receive(live)
        assert await closed(idle) == 1006

    serving(work, patience_s=0.5)


def test_a_viewer_that_stops_reading_is_let_go_and_holds_up_nobody():
    """Its buffers fill with pictures; the server keeps none for it."""

    async def work(served):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(
            b"GET /live HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await served.until(lambda: served.hub.viewers == 1)
        # It confirms without reading, which only a hostile one does: masked frames with "shown".
        confirmation = b"\x81\x85\0\0\0\0shown"
        async with served.look() as live:
            slowest = 0.0
            while served.hub.viewers == 2:
                begin = time.monotonic()
                served.hub.show("", bytes(2_000_000))
                await receive(live)
                slowest = max(slowest, time.monotonic() - begin)
                await live.send_str("shown")
                with contextlib.suppress(ConnectionError):
                    writer.write(confirmation)
            assert slowest < 5.0
            served.hub.show("", b"after")
            while (await receive(live))[1] != b"after":
                await live.send_str("shown")
        writer.close()

    serving(work, patience_s=1.0, fps=60.0)


# Connections that are up to no good


async def ends(reader):
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass


def test_connections_without_a_whole_request_end(monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)

    async def work(served):
        silent, _ = await asyncio.open_connection("127.0.0.1", served.port)
        slow, writer = await asyncio.open_connection("127.0.0.1", served.port)
        body, body_writer = await asyncio.open_connection("127.0.0.1", served.port)
        body_writer.write(
            b"POST /control HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )

        async def drip():
            with contextlib.suppress(ConnectionError):
                for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 1000:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        assert (await served.get())[0] == 200
        async with served.look() as live:
            await receive(live)
            await asyncio.wait_for(asyncio.gather(ends(silent), ends(slow), ends(body)), 5)
            await asyncio.sleep(0.6)  # a viewer stays
            await live.send_str("shown")
            await receive(live)
        dripping.cancel()
        await served.until(lambda: not served.server.connections)

    serving(work, allow_control=True)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST /control HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 9999999\r\n\r\n" + b"a" * 100_000,
        b"\x16\x03\x01" + bytes(100_000),
        b"\r\n" * 50_000,
        b"\x16\x03\x01 no HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 5000 + b"\r\n\r\n",
    ],
    ids=["headers", "path", "header", "body", "tls", "lines", "no http", "long line"],
)
def test_wrong_requests_end(request_bytes, caplog):
    async def work(served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        with contextlib.suppress(ConnectionError):
            writer.write(request_bytes)
            await writer.drain()
        await asyncio.wait_for(ends(reader), 5)
        assert (await served.get())[0] == 200

    serving(work, allow_control=True)
    assert caplog.records == []  # whoever sends such things would fill the log


def test_a_viewer_may_not_flood_the_server():
    async def work(served):
        live = await served.look()
        await receive(live)
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            for _ in range(2000):
                await live.ping(b"x" * 100)
        await closed(live)
        await served.until(lambda: not served.hub.viewers)

    serving(work)


def test_there_are_no_more_connections_than_allowed(monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)

    async def work(served):
        opened = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(20)]
        await served.until(lambda: served.server.connections == 5)
        await asyncio.wait_for(asyncio.gather(*(ends(reader) for reader, _ in opened[5:])), 5)
        for _, writer in opened:
            writer.close()
        await served.until(lambda: not served.server.connections)
        assert (await served.get())[0] == 200

    serving(work)


# Changes


def test_nothing_can_be_changed_unless_it_is_allowed():
    async def work(served):
        status, text = await served.control({"model_size": "s1"})
        assert status == 403 and "--allow-control" in text
        assert served.source.changes == []

    serving(work)


def test_changes_are_passed_on_and_answered():
    async def work(served):
        assert await served.control({"model_size": "s1"}) == (200, "done")
        assert await served.control({"enabled": False}) == (200, "done")
        served.source.answer = ControlError("the catalog has no model s9")
        assert await served.control({"model_size": "s9"}) == (409, "the catalog has no model s9")
        assert served.source.changes == [
            ("model_size", "s1"), ("enabled", False), ("model_size", "s9")
        ]  # fmt: skip

    serving(work, allow_control=True)


@pytest.mark.parametrize(
    "wanted",
    [
        {}, [], None, 1, {"runtime": "onnx"}, {"enabled": "yes"}, {"enabled": 1},
        {"model_size": 3}, {"model_size": "s0", "enabled": True},
    ],
)  # fmt: skip
def test_nothing_else_can_be_changed(wanted):
    async def work(served):
        content = {"data": json.dumps(wanted), "headers": {"Content-Type": "application/json"}}
        assert (await served.control(None, **content))[0] == 400
        assert served.source.changes == []

    serving(work, allow_control=True)


def test_a_form_of_another_page_changes_nothing():
    async def work(served):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            answer = await served.control(
                None, data='{"enabled": false}', headers={"Content-Type": kind}
            )
            assert answer[0] == 415
        broken = {"headers": {"Content-Type": "application/json"}}
        for data in ("{", "[" * 1000, "\udcff".encode("utf-8", "surrogatepass"), "9" * 1020):
            assert (await served.control(None, data=data, **broken))[0] == 400
        assert (await served.control(None, data="[" * 2000, **broken))[0] == 413
        assert served.source.changes == []

    serving(work, allow_control=True)


def test_one_change_at_a_time_and_none_without_end(monkeypatch):
    monkeypatch.setattr(server, "_ANSWER_S", 0.5)

    async def work(served):
        served.source.answer = None  # it never answers
        first = asyncio.ensure_future(served.control({"enabled": True}))
        await served.until(lambda: served.source.changes)
        assert (await served.control({"enabled": False}))[0] == 409
        assert (await first)[0] == 504
        served.source.answer = "done"
        assert (await served.control({"enabled": False}))[0] == 200

    serving(work, allow_control=True)


# Beginning and end


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = WebOptions(port=taken.getsockname()[1])

        async def start():
            source = Source()
            web_server = WebServer(options, Hub(source), source)
            try:
                await web_server.start()
            finally:
                await web_server.close()

        with pytest.raises(WebError, match=r"cannot listen at port \d+ of 127.0.0.1: .*--port"):
            asyncio.run(start())


def test_the_end_waits_for_nobody():
    async def run():
        served = await Served(WebOptions(port=0), 10.0).start()
        reads, idle = await served.look(), await served.look()
        await receive(reads)
        ending = asyncio.ensure_future(closed(reads))
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        begin = time.monotonic()
        await served.server.close()
        assert time.monotonic() - begin < 5.0
        assert await ending in (1000, 1001)  # before aiohttp 3.10, 1000
        await idle.close()
        writer.close()
        await served.client.close()

    asyncio.run(run())
