"""Checks a URL for mistakes that would otherwise show up in the middle of a request."""

from __future__ import annotations

from urllib.parse import urlsplit


def url_problem(url: str) -> str | None:
    """Say what makes a URL malformed; None if nothing does.

    Args:
        url: Any text. Only `scheme://host[:port]/path` in ASCII without spaces is well formed.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it must be percent-encoded: no spaces, control characters or letters beyond ASCII"
    try:
        parts = urlsplit(url)
        port = parts.port  # raises for a port that is no number or too large
    except ValueError as error:
        return str(error)
    if not parts.scheme or not parts.hostname:
        return "it names no host"
    return "port 0 cannot be connected to" if port == 0 else None
