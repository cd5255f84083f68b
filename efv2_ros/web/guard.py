"""Who may look: the token, and the names of the Host and Origin headers."""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import urlsplit

from efv2_ros.web.options import is_loopback

_HOST = re.compile(r"(?P<name>[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?", re.ASCII)
"""The Host header: a name or an address, and perhaps a port."""


class Guard:
    """Decides about requests by their headers.

    Args:
        token: What a browser must know; empty if everybody who reaches the server may look.
        host: The address that the server listens at.

    Attributes:
        cookie: What a browser that knows the token sends from then on; it does not give the token
            away.
    """

    def __init__(self, token: str, host: str) -> None:
        self._token = _digest(token) if token else b""
        self._host = host.lower()
        self.cookie = _digest(f"cookie {token}").hex()

    def admits(self, token: str, cookie: str) -> bool:
        """Whether a request has the token or the cookie; compares in constant time."""
        if not self._token:
            return True
        by_token = hmac.compare_digest(_digest(token), self._token)
        by_cookie = hmac.compare_digest(_digest(cookie), _digest(self.cookie))
        return by_token or by_cookie

    def knows_host(self, host: str) -> bool:
        """Whether a Host header is one that this server has.

        A foreign page can have its own name lead to this machine, and would then count as of the
        same origin (DNS rebinding). A browser sends the cookie for its own name only, so with a
        token every name will do.
        """
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]").lower()
        return bool(self._token) or is_loopback(name) or name == self._host


def is_same_origin(origin: str | None, host: str) -> bool:
    """Whether a request comes of the page of this server, or of no page at all.

    Args:
        origin: The Origin header, which every browser sends with a WebSocket and with a POST;
            None if there is none.
        host: The Host header.
    """
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
