"""Downloads one file over HTTPS: resumed after a cut, checked, and put in place atomically.

What has arrived so far is `<file>.part`. Beside it, `<file>.part.json` keeps the address and the
server's validator (RFC 9110, section 8.8), so that a later try continues only the same version.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import json
import logging
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from efv2_ros.models.modelfile import ModelError

DownloadProgress = Callable[[int, "int | None"], None]
"""Told of the bytes received so far, and of the bytes expected where the server says it."""

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH})


class DownloadError(ModelError):
    """A download that failed; whatever file was there before is untouched."""


class DownloadStoppedError(ModelError):
    """A download that its caller stopped; a later one continues it."""


def download(
    url: str,
    target: Path,
    *,
    accept: Callable[[Path], None],
    needed: Callable[[], bool] = lambda: True,
    on_progress: DownloadProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
    timeout: float = 30.0,
    attempts: int = 5,
    backoff: float = 1.0,
) -> None:
    """Fetch `url` into `target`.

    Two processes that fetch the same file take turns. A try that ends in a cut connection, a
    time-out or a server's passing error is repeated and goes on where the last one ended.

    Args:
        url: an https address; plain http is for this machine only.
        target: the file to make or replace. Its folder is made where needed.
        accept: called with the complete file before it takes the target's place; raises to
            refuse it, and it is deleted.
        needed: asked once it is this process's turn; the download is left out if it says no.
        on_progress: see `DownloadProgress`.
        should_stop: polled while anything is waited for; the download ends once it says yes.
        timeout: seconds without a byte after which a try is given up.
        attempts: tries in a row that bring nothing new before giving up.
        backoff: seconds before the second try, doubled before each further one.

    Raises:
        DownloadError: the file could not be fetched or stored.
        DownloadStoppedError: `should_stop` said yes.
        Exception: what `accept` raises.
    """
    _check_address(url)
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(part) as file:
            if not needed():
                _remove(part)
                return
            _receive_all(
                url,
                file,
                part,
                _stoppable(url, on_progress, should_stop),
                timeout,
                attempts,
                backoff,
            )
            os.fsync(file.fileno())
            try:
                accept(part)
            except Exception:
                _remove(part)
                raise
            part.replace(target)
            _state_file(part).unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        raise DownloadError(_storage_problem(error, target)) from error


def _stoppable(
    url: str, on_progress: DownloadProgress | None, should_stop: Callable[[], bool] | None
) -> DownloadProgress:
    def report(done: int, total: int | None) -> None:
        if should_stop is not None and should_stop():
            raise DownloadStoppedError(f"the download of {url} was stopped")
        if on_progress is not None:
            on_progress(done, total)

    return report


def _storage_problem(error: OSError, target: Path) -> str:
    cause = error.strerror or str(error)
    cure = {
        errno.ENOSPC: "free some space, then fetch it again: it goes on where it stopped",
        errno.EDQUOT: "free some space, then fetch it again: it goes on where it stopped",
        errno.EACCES: "make the folder writable, or set XDG_CACHE_HOME to one that is",
        errno.EROFS: "set XDG_CACHE_HOME to a folder that can be written",
    }.get(error.errno or 0, "see to that, then fetch it again")
    return f"{target} cannot be stored ({cause}): {cure}"


# --- The part file


@contextlib.contextmanager
def _exclusive(part: Path) -> Iterator[IO[bytes]]:
    """The part file, opened for reading and writing and locked against other processes."""
    while True:
        with part.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("another process is fetching %s: waiting for it", part)
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_still_at(file, part):
                yield file
                return
            # The process that held the lock has moved the file to its place: take a new one.


def _is_still_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _state_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remove(part: Path) -> None:
    _state_file(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _validator(part: Path, url: str) -> str | None:
    """What identifies the version that the part is of; None where it is not known."""
    try:
        state = json.loads(_state_file(part).read_text(encoding="utf-8"))
        return str(state["validator"]) if state["url"] == url else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _remember(part: Path, url: str, headers: Message) -> None:
    etag = headers.get("ETag", "")
    # A weak ETag promises an equivalent file, not the same bytes.
    validator = headers.get("Last-Modified") if etag.startswith("W/") or not etag else etag
    if validator:
        state = json.dumps({"url": url, "validator": validator})
        _state_file(part).write_text(state, encoding="utf-8")
    else:
        _state_file(part).unlink(missing_ok=True)


# --- The transfer


class _TransientError(Exception):
    """Worth another try."""


class _RangeError(_TransientError):
    """The server cannot continue where the part ends: start anew."""


def _receive_all(
    url: str,
    file: IO[bytes],
    part: Path,
    on_progress: DownloadProgress,
    timeout: float,
    attempts: int,
    backoff: float,
) -> None:
    longest = file.seek(0, os.SEEK_END)
    failures = 0
    while True:
        try:
            _receive(url, file, part, on_progress, timeout)
            return
        except _TransientError as error:
            received = file.seek(0, os.SEEK_END)
            failures = 1 if received > longest else failures + 1
            longest = max(longest, received)
            if isinstance(error, _RangeError):
                file.truncate(0)
            if failures >= attempts:
                raise DownloadError(
                    f"{url} could not be fetched ({error}): check the network and try again; "
                    "it goes on where it stopped"
                ) from error
            _log.info("%s: %s; trying again", url, error)
            time.sleep(backoff * 2 ** (failures - 1))


def _receive(
    url: str, file: IO[bytes], part: Path, on_progress: DownloadProgress, timeout: float
) -> None:
    """One request; appends to the part, or starts it anew where it cannot be continued."""
    offset = file.seek(0, os.SEEK_END)
    validator = _validator(part, url)
    request = urllib.request.Request(
        url, headers={"User-Agent": "efv2_ros", "Accept-Encoding": "identity"}
    )
    if offset and validator:
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", validator)
    with _open(request, timeout) as response:
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            total = _continued_total(response, offset)
        else:
            offset, total = 0, response.length
            file.truncate(0)
            _remember(part, url, response.headers)
        on_progress(offset, total)
        for chunk in _chunks(response, total, offset):
            file.write(chunk)
            offset += len(chunk)
            on_progress(offset, total)
        file.flush()
    if total is not None and offset != total:
        raise _TransientError(f"the connection ended after {offset} of {total} bytes")


def _continued_total(response: HTTPResponse, offset: int) -> int | None:
    """Size of the whole file, from an answer that must begin at `offset`."""
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range)
    if match is None or int(match[1]) != offset:
        raise _RangeError(f"byte {offset} was asked for, the answer is {content_range!r}")
    return None if match[3] == "*" else int(match[3])


def _chunks(response: HTTPResponse, total: int | None, offset: int) -> Iterator[bytes]:
    while total is None or offset < total:
        limit = _CHUNK if total is None else min(_CHUNK, total - offset)
        try:
            chunk = response.read1(limit)
        except (OSError, HTTPException) as error:
            raise _TransientError(f"the connection broke: {_reason(error)}") from error
        if not chunk:
            return
        offset += len(chunk)
        yield chunk


def _open(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    url = request.full_url
    try:
        response: HTTPResponse = urllib.request.build_opener(_HttpsRedirects()).open(
            request, timeout=timeout
        )
        return response
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"{error.code} {error.reason}"
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _RangeError(f"the server answered {answer}") from error
        if error.code in _TRANSIENT_STATUS:
            raise _TransientError(f"the server answered {answer}") from error
        raise DownloadError(
            f"{url} answered {answer}: if the file has moved, give its new address in a catalog "
            "of your own, or put the file into $EFV2_MODEL_DIR"
        ) from error
    except urllib.error.URLError as error:
        raise _connection_problem(url, error.reason) from error
    except (OSError, HTTPException) as error:
        raise _TransientError(f"no answer: {_reason(error)}") from error


def _connection_problem(url: str, reason: str | BaseException) -> Exception:
    host = urlsplit(url).hostname
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"the certificate of {host} is not trusted ({reason.verify_message}): check this "
            "machine's clock, and that ca-certificates is installed"
        )
    if isinstance(reason, socket.gaierror) or (
        isinstance(reason, OSError) and reason.errno in _UNREACHABLE
    ):
        return DownloadError(
            f"{host} cannot be reached ({_reason(reason)}): connect this machine to the network, "
            f"or fetch {url} on another and put the file into $EFV2_MODEL_DIR"
        )
    return _TransientError(f"no connection: {_reason(reason)}")


def _reason(error: str | BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to an address that `download` itself would refuse."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise DownloadError(f"{req.full_url} redirects to {newurl}, which is not https")
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return
    raise DownloadError(f"{url} is not an https address: models are only fetched over https")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
