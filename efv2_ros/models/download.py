"""Download one file over HTTPS: resume after a cut, check it, put it in place atomically.

The bytes received so far are in `<file>.part`. Beside it, `<file>.part.json` keeps the URL and the
server's validator (RFC 9110, section 8.8), so that a later try continues only the same version.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import fcntl
import ipaddress
import json
import logging
import os
import queue
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from email.message import Message
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from efv2_ros.files import FileWriteError, open_atomic
from efv2_ros.models.inputs import url_problem
from efv2_ros.models.modelfile import ModelError

DownloadProgress = Callable[[int, "int | None"], None]
"""Called with the bytes received so far, and the bytes expected or None if that is unknown."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_POLL_S = 0.1
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH})


class DownloadError(ModelError):
    """A download that failed. The file that was there before is untouched."""


class DownloadStoppedError(ModelError):
    """A download that its caller stopped. The next one continues it."""


def download(
    url: str,
    target: Path,
    *,
    accept: Callable[[Path], None],
    needed: Callable[[], bool] = lambda: True,
    on_progress: DownloadProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
    timeout_s: float = 40.0,
    attempts: int = 5,
    backoff_s: float = 1.0,
) -> None:
    """Fetch `url` into `target`.

    Two processes that fetch the same file take turns. A try that ends in a cut connection, a
    timeout or a passing error of the server is repeated and continues where the last one ended.

    Args:
        url: An https URL; plain http only from this machine.
        target: The file to make or replace. Its folder is made if it does not exist.
        accept: Called with the complete file before it replaces the target. If it raises, the
            file is deleted.
        needed: Called once it is this process's turn. If it returns False, nothing is fetched.
        on_progress: See `DownloadProgress`.
        should_stop: Polled ten times a second wherever the download waits: for another process,
            for the network, before another try. If it returns True, the download ends.
        timeout_s: Seconds without a byte after which a try is given up.
        attempts: Tries in a row that may bring nothing new.
        backoff_s: Seconds before the second try, doubled before each further one.

    Raises:
        DownloadError: The file could not be fetched or stored.
        DownloadStoppedError: `should_stop` returned True.
        Exception: What `accept` raises.
    """
    _check_url(url)
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _StoppableCalls(url, should_stop) as calls, _exclusive(part, calls) as file:
            if not needed():
                _remove(part)
                return
            report = on_progress or (lambda done, total: None)
            _receive_all(url, file, part, calls, report, timeout_s, attempts, backoff_s)
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
    except FileWriteError as error:
        raise DownloadError(str(error)) from error


def _storage_problem(error: OSError, target: Path) -> str:
    cause = error.strerror or str(error)
    fix = {
        errno.ENOSPC: "free some space, then fetch it again: it continues where it stopped",
        errno.EDQUOT: "free some space, then fetch it again: it continues where it stopped",
        errno.EACCES: "make the folder writable, or set XDG_CACHE_HOME to one that is",
        errno.EROFS: "set XDG_CACHE_HOME to a folder that can be written",
    }.get(error.errno or 0, "correct that, then fetch it again")
    return f"{target} cannot be stored ({cause}): {fix}"


# --- Stopping


class _StoppableCalls:
    """Blocking calls that the caller may stop waiting for.

    Python cannot interrupt name resolution, connecting, a TLS handshake or a read that stalls. So
    these run in a helper thread, and the caller's thread polls `should_stop` meanwhile (and, if it
    is the main thread, gets a KeyboardInterrupt at once). A call that nobody waits for any more
    ends with its own timeout and holds nothing but a socket; it does not keep the process alive.
    """

    def __init__(self, url: str, should_stop: Callable[[], bool] | None) -> None:
        self._url = url
        self._should_stop = should_stop or (lambda: False)
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._queue = queue.SimpleQueue()

    def __enter__(self) -> _StoppableCalls:
        threading.Thread(target=self._work, name="download", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)

    def run(self, function: Callable[[], _T]) -> _T:
        """Call a function in the helper thread and wait for it.

        Raises:
            DownloadStoppedError: `should_stop` returned True meanwhile.
            Exception: What the function raises.
        """
        outcome = self.start(function)
        while not outcome.done():
            self.check()
            concurrent.futures.wait([outcome], _POLL_S)
        return outcome.result()

    def start(self, function: Callable[[], _T]) -> Future[_T]:
        """Call a function in the helper thread once the calls before it have ended."""
        outcome: Future[_T] = Future()
        self._queue.put((outcome, function))
        return outcome

    def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            DownloadStoppedError: `should_stop` returned True meanwhile.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _POLL_S))

    def check(self) -> None:
        """Raise DownloadStoppedError if `should_stop` returns True."""
        if self._should_stop():
            raise DownloadStoppedError(f"the download of {self._url} was stopped")

    def _work(self) -> None:
        for outcome, function in iter(self._queue.get, None):
            try:
                outcome.set_result(function())
            except Exception as error:
                outcome.set_exception(error)


# --- The part file


@contextlib.contextmanager
def _exclusive(part: Path, calls: _StoppableCalls) -> Iterator[IO[bytes]]:
    """Open the part file for reading and writing, locked against other processes.

    An empty one is removed at the end.
    """
    while True:
        with part.open("a+b") as file:
            if not _lock(file):
                _log.info("another process is fetching %s: waiting for it", part)
                while not _lock(file):
                    calls.pause(_POLL_S)
            if not _is_still_at(file, part):
                continue  # the process that held the lock has moved the file into place
            try:
                yield file
            finally:
                if file.seek(0, os.SEEK_END) == 0 and _is_still_at(file, part):
                    _remove(part)
            return


def _lock(file: IO[bytes]) -> bool:
    """Try to lock a file; False if another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
    """Read which version the part is of; None if that is unknown."""
    try:
        state = json.loads(_state_file(part).read_text(encoding="utf-8"))
        return str(state["validator"]) if state["url"] == url else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _remember(part: Path, url: str, headers: Message) -> None:
    """Write down which version the part is of."""
    etag = headers.get("ETag", "")
    # A weak ETag promises an equivalent file, not the same bytes.
    validator = headers.get("Last-Modified") if etag.startswith("W/") or not etag else etag
    if validator:
        with open_atomic(_state_file(part)) as file:
            json.dump({"url": url, "validator": validator}, file)
    else:
        _state_file(part).unlink(missing_ok=True)


# --- The transfer


class _TransientError(Exception):
    """A failure that another try may not meet."""


class _RangeError(_TransientError):
    """An answer that does not continue where the part ends; the next try starts anew."""


def _receive_all(
    url: str,
    file: IO[bytes],
    part: Path,
    calls: _StoppableCalls,
    on_progress: DownloadProgress,
    timeout_s: float,
    attempts: int,
    backoff_s: float,
) -> None:
    longest = file.seek(0, os.SEEK_END)
    failures = 0
    while True:
        try:
            _receive(url, file, part, calls, on_progress, timeout_s)
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
                    "it continues where it stopped"
                ) from error
            _log.info("%s: %s; trying again", url, error)
            calls.pause(backoff_s * 2 ** (failures - 1))


def _receive(
    url: str,
    file: IO[bytes],
    part: Path,
    calls: _StoppableCalls,
    on_progress: DownloadProgress,
    timeout_s: float,
) -> None:
    """Send one request; append to the part, or start it anew if it cannot be continued."""
    offset = file.seek(0, os.SEEK_END)
    validator = _validator(part, url)
    request = urllib.request.Request(
        url, headers={"User-Agent": "efv2_ros", "Accept-Encoding": "identity"}
    )
    if offset and validator:
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", validator)
    response = calls.run(partial(_open, request, timeout_s))
    try:
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            total = _continued_total(response, offset)
        else:
            offset, total = 0, response.length
            file.truncate(0)
            _remember(part, url, response.headers)
        on_progress(offset, total)
        while total is None or offset < total:
            limit = _CHUNK if total is None else min(_CHUNK, total - offset)
            chunk = calls.run(partial(_read, response, limit))
            if not chunk:
                break
            file.write(chunk)
            offset += len(chunk)
            on_progress(offset, total)
        file.flush()
    finally:
        calls.start(response.close)  # here it would wait for a read that stalls
    if total is not None and offset != total:
        raise _TransientError(f"the connection ended after {offset} of {total} bytes")


def _continued_total(response: HTTPResponse, offset: int) -> int | None:
    """Read the size of the whole file from an answer that must begin at `offset`."""
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range)
    if match is None or int(match[1]) != offset:
        raise _RangeError(f"byte {offset} was asked for, the answer is {content_range!r}")
    return None if match[3] == "*" else int(match[3])


def _read(response: HTTPResponse, limit: int) -> bytes:
    """Read what has arrived, or wait for more; empty at the end."""
    try:
        return response.read1(limit)
    except (OSError, HTTPException) as error:
        raise _TransientError(f"the connection broke: {_reason(error)}") from error


def _open(request: urllib.request.Request, timeout_s: float) -> HTTPResponse:
    url = request.full_url
    try:
        response: HTTPResponse = urllib.request.build_opener(_HttpsRedirects()).open(
            request, timeout=timeout_s
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
            f"{url} answered {answer}: if the file has moved, give its new URL in a catalog "
            "of your own, or put the file into $EFV2_MODEL_DIR"
        ) from error
    except urllib.error.URLError as error:
        raise _connection_problem(url, error.reason) from error
    except (InvalidURL, ValueError) as error:  # here, in a redirect, or in https_proxy
        raise DownloadError(f"{url} led to an address that is not valid: {error}") from error
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
    """Redirects, followed only to URLs that `download` itself would accept."""

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
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _check_url(url: str) -> None:
    problem = url_problem(url)
    if problem and url.lower().startswith(("https:", "http:")):
        raise DownloadError(f"{url} is not a valid URL: {problem}")
    parts = urlsplit("" if problem else url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return
    raise DownloadError(f"{url} is not an https address: models are only fetched over https")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
