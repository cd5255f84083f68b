"""A real HTTP server on this machine that misbehaves on demand."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What the server does with the next requests; may be changed between them."""

    content: bytes = b""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Content of some paths, in place of `content`."""
    etag: str | None = '"1"'
    last_modified: str | None = None
    content_type: str = "application/octet-stream"
    ranges: bool = True
    """Answer Range with 206; else ignore it and send all."""
    chunked: bool = False
    """Send no Content-Length, but chunks."""
    claimed_length: int | None = None
    """A Content-Length that is a lie."""
    wrong_range: bool = False
    """Answer Range with the bytes from 0, in a 206 that says so."""
    refuse_ranges: bool = False
    """Answer Range with 416."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next requests, each used once, before it serves again."""
    cut_after: list[int] = field(default_factory=list)
    """Body bytes after which the next connections are cut, each used once."""
    stall_after: list[int] = field(default_factory=list)
    """Body bytes after which the next answers pause until `Server.release`, each used once."""
    pause_after: list[int] = field(default_factory=list)
    """Body bytes after which every answer pauses for `pause_s`, in rising order."""
    pause_s: float = 0.0
    redirect_to: str | None = None
    """Where every request to a path other than /moved is sent."""


class Server:
    """The running server: its behaviour, and what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.behaviour = Behaviour()
        self.requests: list[dict[str, str]] = []
        self.asked = threading.Event()
        self.release = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        port = self._http.server_address[1]
        self.base = f"http://127.0.0.1:{port}"
        if tls is not None:
            self.base = f"https://localhost:{port}"
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(tls)
    thread = threading.Thread(target=server._http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server._http.shutdown()
        thread.join()
        server._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        b = self.owner.behaviour
        self.owner.requests.append({name.lower(): value for name, value in self.headers.items()})
        self.owner.asked.set()
        if b.redirect_to is not None and self.path != "/moved":
            self.send_response(302)
            self.send_header("Location", b.redirect_to)
            self._end(b"")
            return
        if b.statuses:
            status = b.statuses.pop(0)
            if status != 200:
                self.send_response(status)
                self._end(b"no")
                return
        content = b.contents.get(self.path, b.content)
        start = self._wanted_start()
        if start is not None and (b.refuse_ranges or start >= len(content)):
            self.send_response(416)
            self._end(b"")
            return
        if start is not None:
            sent_from = 0 if b.wrong_range else start
            self.send_response(206)
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {sent_from}-{last}/{len(content)}")
            self._end(content[sent_from:])
        else:
            self.send_response(200)
            self._end(content)

    def _wanted_start(self) -> int | None:
        b = self.owner.behaviour
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        current = b.etag or b.last_modified
        if match is None or not b.ranges or self.headers.get("If-Range") != current:
            return None
        return int(match[1])

    def _end(self, body: bytes) -> None:
        b = self.owner.behaviour
        if b.etag:
            self.send_header("ETag", b.etag)
        if b.last_modified:
            self.send_header("Last-Modified", b.last_modified)
        self.send_header("Content-Type", b.content_type)
        self.send_header("Connection", "close")
        if b.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(body) if b.claimed_length is None else b.claimed_length
            self.send_header("Content-Length", str(length))
        self.end_headers()
        stall = b.stall_after.pop(0) if body and b.stall_after else None
        cut = b.cut_after.pop(0) if body and b.cut_after else None
        end = next((n for n in (stall, cut) if n is not None), len(body))
        sent = 0
        for pause in b.pause_after:
            self._write(body[sent : min(pause, end)])
            sent = min(pause, end)
            time.sleep(b.pause_s)
        self._write(body[sent:end])
        if stall is not None:
            self.owner.release.wait(30)
            with suppress(OSError):  # the client may have given up
                self._write(body[end:])
        elif cut is None and b.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, body: bytes) -> None:
        if not self.owner.behaviour.chunked:
            self.wfile.write(body)
        elif body:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))

    def log_message(self, format: str, *args: object) -> None:
        pass
