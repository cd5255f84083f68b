"""The web server: the page's files, the stream of updates, and requests for changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from aiohttp import WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from efv2_ros.web.connections import Connections
from efv2_ros.web.guard import Guard, is_same_origin
from efv2_ros.web.hub import TICK_S, ControlError, Hub, Source
from efv2_ros.web.options import WebError, WebOptions
from efv2_ros.web.viewer import PATIENCE_S, Viewer

MOST_VIEWERS = 32

_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in ("page.js", "camera.js", "parts.js")},
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_CONFIRMATION = "shown"
"""The only message that a viewer may send, one for each update."""

_LONGEST_MESSAGE = 64
_LONGEST_REQUEST = 1024
_LONGEST_LINE = 4096
"""Bytes of a viewer's message, of a request's body, and of a line of its headers."""

_ANSWER_S = 8.0
"""How long the classifier may take to answer a request for a change."""

_CLOSE_S = 0.5
"""How long the end of the server may take."""

_TRY_AGAIN_LATER, _POLICY_VIOLATION, _GOING_AWAY = 1013, 1008, 1001
"""Reasons for the end of a WebSocket, by RFC 6455."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebServer:
    """Serves the page of one classifier; belongs to the thread of the running event loop.

    Args:
        options: Where to listen, and what is allowed.
        hub: What the viewers look at.
        source: Takes the requests for changes.
        patience_s: How long a viewer may show no progress.
    """

    def __init__(
        self, options: WebOptions, hub: Hub, source: Source, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._options, self._hub, self._source = options, hub, source
        self._patience_s = patience_s
        self._guard = Guard(options.token, options.host)
        folder = resources.files("efv2_ros.web") / "static"
        self._files = {
            path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()
        }
        self._changing = asyncio.Lock()
        self._sockets: set[web.WebSocketResponse] = set()
        self._ticking: asyncio.Task[None] | None = None
        app = web.Application(middlewares=[self._checked], client_max_size=_LONGEST_REQUEST)
        app.on_response_prepare.append(self._add_headers)
        for path in self._files:
            app.router.add_get(path, self._send_file)
        app.router.add_get("/live", self._look)
        app.router.add_post("/control", self._control)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_logger,
            handle_signals=False,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
        )
        self._connections: Connections | None = None
        self._server: asyncio.AbstractServer | None = None

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections or ())

    async def start(self) -> int:
        """Begin to listen, and return the port.

        Raises:
            WebError: The port cannot be had.
        """
        await self._runner.setup()
        inner = self._runner.server
        assert inner is not None
        self._connections = Connections(inner)
        host, port = self._options.host, self._options.port
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connections, host, port)
        except OSError as error:
            raise WebError(
                f"cannot listen at port {port} of {host}: {error.strerror or error}. Another port "
                "can be given with --port"
            ) from error
        self._ticking = asyncio.create_task(self._tick())
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """End all connections and stop listening."""
        if self._ticking is not None:
            self._ticking.cancel()
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._say_goodbye(), _CLOSE_S)
        if self._connections is not None:
            self._connections.abort()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._runner.cleanup(), _CLOSE_S)

    async def _say_goodbye(self) -> None:
        await asyncio.gather(
            *(socket.close(code=_GOING_AWAY) for socket in tuple(self._sockets)),
            return_exceptions=True,
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self._hub.viewers:
                continue
            try:
                self._hub.tick()
            except Exception:  # the next report may be better
                _logger.exception("a report cannot be shown")

    # Every request and answer

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse who may not look before anything is done for him."""
        host = request.headers.get("Host", "")
        if not self._guard.knows_host(host):
            return _answer(403, "The page is not known by this name: see --host.")
        token = request.query.get("token", "")
        kind, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if not token and kind == "Bearer":
            token = credentials
        if not self._guard.admits(token, request.cookies.get(self._cookie_name(), "")):
            return _answer(
                401, "The page needs its token: open it as http://HOST:PORT/?token=TOKEN."
            )
        is_of_page = is_same_origin(request.headers.get("Origin"), host)
        if request.path not in self._files and not is_of_page:
            return _answer(403, "Only the page itself may ask for this.")
        return await handler(request)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        # Safari before 15.4 does not count WebSockets to 'self'.
        host = request.headers.get("Host", "")
        sockets = f" ws://{host} wss://{host}" if self._guard.knows_host(host) else ""
        response.headers.update(
            {
                "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
                f"style-src 'self'; img-src 'self'; connect-src 'self'{sockets}; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cache-Control": "no-store",
            }
        )

    def _cookie_name(self) -> str:
        """A browser sends cookies to every port of a host: two pages must not share one."""
        return f"efv2_web_{self._options.port}"

    # The page's files

    async def _send_file(self, request: web.Request) -> web.Response:
        content, kind = self._files[request.path]
        response = web.Response(body=content, content_type=kind, charset="utf-8")
        if self._options.token:
            response.set_cookie(
                self._cookie_name(), self._guard.cookie, httponly=True, samesite="Strict"
            )
        response.force_close()  # a connection has one request
        return response

    # Viewers

    async def _look(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            timeout=_CLOSE_S, autoping=False, compress=False, max_msg_size=_LONGEST_MESSAGE
        )
        await socket.prepare(request)
        if len(self._sockets) >= MOST_VIEWERS:
            reason = f"{MOST_VIEWERS} viewers look already"
            await socket.close(code=_TRY_AGAIN_LATER, message=reason.encode())
            return socket
        connection = self._connections.of(request.transport) if self._connections else None
        if connection is None:
            return socket
        connection.keep()
        viewer = Viewer(
            self._hub,
            socket.send_bytes,
            period_s=0.5 / self._options.fps,
            patience_s=self._patience_s,
        )
        self._sockets.add(socket)
        self._hub.enter()
        sending = asyncio.create_task(viewer.run())
        sending.add_done_callback(lambda _: connection.abort())
        try:
            await self._hear(socket, viewer)
        finally:
            sending.cancel()
            self._hub.leave()
            self._sockets.discard(socket)
        return socket

    async def _hear(self, socket: web.WebSocketResponse, viewer: Viewer) -> None:
        """Take the viewer's confirmations until it goes, or sends anything else."""
        async for message in socket:
            is_text = message.type is WSMsgType.TEXT
            if not (is_text and message.data == _CONFIRMATION and viewer.confirm()):
                await socket.close(code=_POLICY_VIOLATION)
                return

    # Changes

    async def _control(self, request: web.Request) -> web.Response:
        if not self._options.allow_control:
            return _answer(403, "Nothing can be changed here: see --allow-control.")
        if request.content_type != "application/json":
            return _answer(415, "A change is asked for in JSON.")
        try:
            wanted = json.loads(await request.text())
        except (ValueError, RecursionError):
            return _answer(400, "This is no JSON.")
        if not _is_change(wanted):
            return _answer(400, "Only model_size and enabled can be changed, one at a time.")
        if self._changing.locked():
            return _answer(409, "Another change is being made.")
        async with self._changing:
            ((name, value),) = wanted.items()
            change = asyncio.wrap_future(self._source.change(name, value))
            try:
                text, status = await asyncio.wait_for(change, _ANSWER_S), 200
            except ControlError as error:
                text, status = str(error), 409
            except asyncio.TimeoutError:
                text, status = "the classifier does not answer", 504
        return _answer(status, text)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether an error is this program's, and not that of a client that speaks no HTTP."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, ConnectionError))


_logger = logging.getLogger(__name__)
_logger.addFilter(_is_worth_logging)


def _is_change(wanted: Any) -> bool:
    if not isinstance(wanted, dict) or len(wanted) != 1:
        return False
    ((name, value),) = wanted.items()
    return isinstance(value, {"model_size": str, "enabled": bool}.get(name, ()))


def _answer(status: int, text: str) -> web.Response:
    """Answer with a sentence, after which the connection ends."""
    response = web.Response(status=status, text=f"{text}\n")
    response.force_close()
    return response
