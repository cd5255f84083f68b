import errno
import fcntl
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
from http_server import serving

from efv2_ros.models import download as module
from efv2_ros.models.download import DownloadError, DownloadStoppedError, download

CONTENT = random.Random(0).randbytes(600_000)
NEWER = random.Random(1).randbytes(500_000)
GOOD = b"the good file of yesterday"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.behaviour.content = CONTENT
        yield server


@pytest.fixture
def target(tmp_path):
    """A place that already holds a good file."""
    path = tmp_path / "models" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(GOOD)
    return path


def fetch(server, target, **options):
    options = {"accept": lambda part: None, "timeout_s": 5.0, "backoff_s": 0.0, **options}
    download(server.url(target.name), target, **options)


def assert_only(target, content):
    """The folder holds the file with this content and nothing else."""
    assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]


def leave_part(server, target, length):
    """Fetch the first `length` bytes and give up, as a killed process would."""
    server.behaviour.cut_after = [length]
    with pytest.raises(DownloadError, match=f"after {length} of"):
        fetch(server, target, attempts=1)
    assert target.read_bytes() == GOOD
    server.requests.clear()


def test_replaces_the_file_and_tells_progress(server, target):
    told = []
    fetch(server, target, on_progress=lambda done, total: told.append((done, total)))
    assert_only(target, CONTENT)
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)


def test_makes_the_folder(server, tmp_path):
    target = tmp_path / "a" / "b" / "model.onnx"
    fetch(server, target)
    assert_only(target, CONTENT)


def test_a_file_of_unknown_length(server, target):
    server.behaviour.chunked = True
    told = []
    fetch(server, target, on_progress=lambda done, total: told.append((done, total)))
    assert_only(target, CONTENT)
    assert told[-1] == (len(CONTENT), None)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_connection_is_continued(server, target, chunked):
    server.behaviour.chunked = chunked
    server.behaviour.cut_after = [100_000, 50_000]
    fetch(server, target)
    assert_only(target, CONTENT)
    assert [r.get("range") for r in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert server.requests[1]["if-range"] == '"1"'


def test_a_stalled_connection_is_given_up_and_continued(server, target):
    server.behaviour.stall_after = [70_000]
    fetch(server, target, timeout_s=0.3)
    assert_only(target, CONTENT)
    assert server.requests[1]["range"] == "bytes=70000-"


def test_a_later_process_continues(server, target):
    leave_part(server, target, 123_456)
    told = []
    fetch(server, target, on_progress=lambda done, total: told.append((done, total)))
    assert_only(target, CONTENT)
    assert [r["range"] for r in server.requests] == ["bytes=123456-"]
    assert told[0] == (123_456, len(CONTENT))


def test_the_date_serves_where_there_is_no_strong_etag(server, target):
    server.behaviour.etag = None
    server.behaviour.last_modified = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.behaviour.cut_after = [1000]
    fetch(server, target)
    assert_only(target, CONTENT)
    assert server.requests[1]["if-range"] == "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_strong_validator_it_starts_anew(server, target, etag):
    server.behaviour.etag = etag
    server.behaviour.cut_after = [1000]
    fetch(server, target)
    assert_only(target, CONTENT)
    assert "range" not in server.requests[1]


def test_a_server_that_ignores_range(server, target):
    server.behaviour.ranges = False
    leave_part(server, target, 123_456)
    fetch(server, target)
    assert_only(target, CONTENT)
    assert server.requests[0]["range"] == "bytes=123456-"


def test_content_that_changed_since_the_cut(server, target):
    leave_part(server, target, 123_456)
    server.behaviour.content = NEWER
    server.behaviour.etag = '"2"'
    fetch(server, target)
    assert_only(target, NEWER)


def test_another_address_does_not_continue_the_part(server, target):
    leave_part(server, target, 123_456)
    server.behaviour.content = NEWER
    download(server.url("other"), target, accept=lambda part: None)
    assert_only(target, NEWER)
    assert "range" not in server.requests[0]


@pytest.mark.parametrize("fault", ["wrong_range", "refuse_ranges"])
def test_a_range_that_cannot_be_had_starts_anew(server, target, fault):
    leave_part(server, target, 123_456)
    setattr(server.behaviour, fault, True)
    fetch(server, target)
    assert_only(target, CONTENT)
    assert [r.get("range") for r in server.requests] == ["bytes=123456-", None]


def test_a_part_that_is_already_whole(server, target):
    """As left by a process that was killed between the last byte and the rename."""
    leave_part(server, target, 123_456)
    target.with_name(target.name + ".part").write_bytes(CONTENT)
    fetch(server, target)
    assert_only(target, CONTENT)


@pytest.mark.parametrize("extra", [1, 100_000])
def test_a_length_that_never_arrives(server, target, extra):
    server.behaviour.claimed_length = len(CONTENT) + extra
    with pytest.raises(DownloadError, match=f"after {len(CONTENT)} of {len(CONTENT) + extra} by"):
        fetch(server, target, attempts=1)
    assert target.read_bytes() == GOOD
    with pytest.raises(DownloadError):  # and it ends, whatever it is tried with
        fetch(server, target, attempts=3)
    assert target.read_bytes() == GOOD


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_passing_error_is_tried_again(server, target, status):
    server.behaviour.statuses = [status, status]
    fetch(server, target)
    assert_only(target, CONTENT)
    assert len(server.requests) == 3


def test_a_lasting_server_error(server, target):
    server.behaviour.statuses = [503] * 10
    with pytest.raises(DownloadError, match=r"503 Service Unavailable.*try again"):
        fetch(server, target, attempts=4)
    assert len(server.requests) == 4
    assert target.read_bytes() == GOOD


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_missing_file_is_not_tried_again(server, target, status):
    server.behaviour.statuses = [status] * 10
    with pytest.raises(DownloadError, match=rf"model\.onnx answered {status}.*EFV2_MODEL_DIR"):
        fetch(server, target)
    assert len(server.requests) == 1
    assert target.read_bytes() == GOOD


def test_tries_wait_twice_as_long_each(server, target, monkeypatch):
    waits = []
    monkeypatch.setattr(module._StoppableCalls, "pause", lambda self, s: waits.append(s))
    server.behaviour.statuses = [503] * 10
    with pytest.raises(DownloadError):
        fetch(server, target, attempts=4, backoff_s=0.5)
    assert waits == [0.5, 1.0, 2.0]


def test_progress_earns_new_tries(server, target):
    server.behaviour.cut_after = [60_000] * 8
    fetch(server, target, attempts=2)
    assert_only(target, CONTENT)
    assert len(server.requests) == 9


def test_a_redirect_is_followed(server, target):
    server.behaviour.redirect_to = "/moved"
    fetch(server, target)
    assert_only(target, CONTENT)


@pytest.mark.parametrize("address", ["http://models.example/m", "ftp://models.example/m"])
def test_a_redirect_to_an_unsafe_address(server, target, address):
    server.behaviour.redirect_to = address
    with pytest.raises(DownloadError, match=r"models\.example/m is not an https address"):
        fetch(server, target)
    assert target.read_bytes() == GOOD


def test_https_never_falls_back_to_http():
    """Not even to this machine, whose plain addresses are fine otherwise."""
    request = module.urllib.request.Request("https://models.example/m")
    with pytest.raises(DownloadError, match="which is not https"):
        module._HttpsRedirects().redirect_request(
            request, None, 302, "Found", {}, "http://127.0.0.1/m"
        )


@pytest.mark.parametrize(
    "url", ["http://models.example/m", "ftp://127.0.0.1/m", "file:///etc/passwd", "model.onnx", ""]
)
def test_unsafe_addresses(target, url):
    with pytest.raises(DownloadError, match="only fetched over https"):
        download(url, target, accept=lambda part: None)
    assert_only(target, GOOD)


def test_a_refused_file_is_deleted(server, target):
    def refuse(part):
        assert part.read_bytes() == CONTENT
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        fetch(server, target, accept=refuse)
    assert_only(target, GOOD)


def test_nothing_is_fetched_that_is_not_needed(server, target):
    fetch(server, target, needed=lambda: False)
    assert_only(target, GOOD)
    assert server.requests == []


def test_nobody_listens(target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/model.onnx"
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 cannot be reached \(Connection"):
        download(url, target, accept=lambda part: None)
    assert target.read_bytes() == GOOD


def test_offline(target, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=r"models\.example cannot be reached.*on another"):
        download("https://models.example/model.onnx", target, accept=lambda part: None)
    assert target.read_bytes() == GOOD


def test_a_server_that_does_not_speak_tls(server, target):
    url = server.url("model.onnx").replace("http:", "https:")
    with pytest.raises(DownloadError, match="no connection"):
        download(url, target, accept=lambda part: None, attempts=2, backoff_s=0.0)
    assert target.read_bytes() == GOOD


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates_are_checked(target, tmp_path, monkeypatch):
    """Over real TLS: refused with a certificate nobody vouches for, served once it is trusted."""
    monkeypatch.setenv("no_proxy", "*")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"],
            *["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
            *["-keyout", str(key), "-out", str(certificate)],
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(context) as server:
        server.behaviour.content = CONTENT
        with pytest.raises(DownloadError, match=r"localhost is not trusted .*machine's clock"):
            fetch(server, target)
        assert target.read_bytes() == GOOD
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        fetch(server, target)
    assert_only(target, CONTENT)


def test_storage_that_is_full_half_way(server, target):
    """In a process that may not make files of more than 200,000 bytes."""
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "from efv2_ros.models.download import download;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "download(sys.argv[1], Path(sys.argv[2]), accept=lambda part: None)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, server.url(target.name), str(target)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 1
    assert "cannot be stored (File too large)" in result.stderr
    assert target.read_bytes() == GOOD
    fetch(server, target)  # what had arrived is used once there is room
    assert_only(target, CONTENT)
    assert server.requests[-1]["range"] == "bytes=200000-"


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "XDG_CACHE_HOME")]
)
def test_storage_problems_say_what_to_do(server, target, number, cure):
    def full(part):
        raise OSError(number, os.strerror(number))

    with pytest.raises(DownloadError, match=cure):
        fetch(server, target, accept=full)
    assert target.read_bytes() == GOOD


def test_a_folder_that_cannot_be_made(server, target):
    with pytest.raises(DownloadError, match=r"cannot be stored \(File exists\)"):
        fetch(server, target / "model.onnx")
    assert_only(target, GOOD)


@pytest.mark.parametrize("needed", [False, True])
def test_two_processes_take_turns(server, target, needed):
    """The second comes while the first has the file half, and waits; then it may be needed or not.

    Needed, it starts a file of its own and does not write into the one that is in place by then.
    """
    code = (
        "import logging, sys; from pathlib import Path;"
        "from efv2_ros.models.download import download;"
        "logging.basicConfig(level='INFO');"
        "download(sys.argv[1], Path(sys.argv[2]), accept=lambda part: None,"
        " needed=lambda: sys.argv[3] == 'True')"
    )
    command = [sys.executable, "-c", code, server.url(target.name), str(target)]
    server.behaviour.stall_after = [1000]
    with subprocess.Popen([*command, "True"]) as first:
        assert server.asked.wait(30)
        with subprocess.Popen(
            [*command, str(needed)], stderr=subprocess.PIPE, text=True
        ) as second:
            assert "another process is fetching" in second.stderr.readline()
            server.release.set()
            assert first.wait(30) == 0
            assert second.wait(30) == 0
    assert_only(target, CONTENT)
    assert ["range" in request for request in server.requests] == [False] * (1 + needed)


# --- Stopping


@contextmanager
def silent_server():
    """Accepts a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def full_server():
    """A port that takes no more connections: a client's attempt hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as clients:
        address = server.getsockname()
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(address)
        yield address[1]


def stop_soon():
    """A `should_stop` that says yes a while after it is asked first."""
    asked = []

    def should_stop():
        asked.append(time.monotonic())
        return asked[-1] - asked[0] > 0.3

    return should_stop


def stop_download(url, target, should_stop=None):
    """Seconds from the wish to stop until the download has ended."""
    should_stop = should_stop or stop_soon()
    before = time.monotonic()
    with pytest.raises(DownloadStoppedError, match="was stopped"):
        download(url, target, accept=lambda part: None, should_stop=should_stop)
    return time.monotonic() - before


PROMPT = 10.0
"""Seconds that a busy machine may take; what is waited for here takes 40 or more."""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_says_nothing_can_be_left(target, monkeypatch, scheme):
    monkeypatch.setenv("no_proxy", "*")
    with silent_server() as port:
        assert stop_download(f"{scheme}://127.0.0.1:{port}/m", target) < PROMPT
    assert_only(target, GOOD)


def test_a_server_that_does_not_let_in_can_be_left(target, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with full_server() as port:
        assert stop_download(f"http://127.0.0.1:{port}/m", target) < PROMPT
    assert_only(target, GOOD)


def test_a_name_that_is_not_resolved_can_be_left(target, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    answer = threading.Event()

    def unanswered(*args, **kwargs):
        answer.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    assert stop_download("https://models.example/m", target) < PROMPT
    answer.set()
    assert_only(target, GOOD)


def test_a_download_that_stalls_can_be_left_and_is_continued_later(server, target):
    server.behaviour.stall_after = [70_000]
    arrived = []
    with pytest.raises(DownloadStoppedError):
        fetch(
            server, target, timeout_s=60.0,
            on_progress=lambda done, total: arrived.append(done),
            should_stop=lambda: arrived[-1:] == [70_000],
        )  # fmt: skip
    assert target.read_bytes() == GOOD
    fetch(server, target)
    assert_only(target, CONTENT)
    assert server.requests[1]["range"] == "bytes=70000-"


def test_another_process_that_never_ends_can_be_left(server, target):
    part = target.with_name(target.name + ".part")
    with part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert stop_download(server.url("m"), target) < PROMPT
        assert part.exists()  # it is the other's
    assert server.requests == []


def test_the_wait_for_another_try_can_be_left(server, target):
    server.behaviour.statuses = [503] * 10
    before = time.monotonic()
    with pytest.raises(DownloadStoppedError):
        fetch(server, target, backoff_s=60.0, should_stop=stop_soon())
    assert time.monotonic() - before < PROMPT
    assert_only(target, GOOD)


def test_a_download_that_is_stopped_beforehand_asks_nobody(server, target):
    with pytest.raises(DownloadStoppedError):
        fetch(server, target, should_stop=lambda: True)
    assert target.read_bytes() == GOOD


def test_a_slow_server_is_waited_for(server, target):
    """Each pause is many polls long; the server cannot continue, so one request must do."""
    server.behaviour.ranges = False
    server.behaviour.pause_after = [1, 1000, 300_000]
    server.behaviour.pause_s = 0.7
    fetch(server, target, should_stop=lambda: False)
    assert_only(target, CONTENT)
    assert len(server.requests) == 1


@pytest.mark.parametrize("held", [False, True])
def test_ctrl_c_ends_a_download_that_waits(server, target, held):
    """In a process of its own, whose main thread gets KeyboardInterrupt."""
    code = (
        "import signal, sys; from pathlib import Path;"
        "from efv2_ros.models.download import download;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a script may ignore it
        "download(sys.argv[1], Path(sys.argv[2]), accept=lambda part: None,"
        " on_progress=lambda done, total: print(done, flush=True),"
        " should_stop=lambda: print('asked', flush=True))"
    )
    part = target.with_name(target.name + ".part")
    server.behaviour.stall_after = [0]
    with part.open("wb") as other:
        if held:
            fcntl.flock(other, fcntl.LOCK_EX)
        with subprocess.Popen(
            [sys.executable, "-c", code, server.url(target.name), str(target)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline()  # it is under way
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PROMPT)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert target.read_bytes() == GOOD


# --- Addresses and what is left behind


@pytest.mark.parametrize("status", [404, 503])
def test_a_failure_leaves_no_empty_part(server, target, status):
    server.behaviour.statuses = [status] * 10
    with pytest.raises(DownloadError):
        fetch(server, target, attempts=2)
    assert_only(target, GOOD)


@pytest.mark.parametrize(
    "url",
    [
        "https://[::1/m.onnx",
        "https://models.example:port/m.onnx",
        "https://models.example:99999/m.onnx",
        "https:///m.onnx",
        "https://",
        "https://models.example/a model.onnx",
        "https://models.example/modèle.onnx",
        "https://models.example/m\n.onnx",
    ],
)
def test_malformed_addresses(target, url):
    with pytest.raises(DownloadError, match="not a valid URL"):
        download(url, target, accept=lambda part: None)
    assert_only(target, GOOD)


@pytest.mark.parametrize("address", ["http://[::1/m", "https://127.0.0.1:port/m"])
def test_a_redirect_to_a_malformed_address(server, target, address):
    server.behaviour.redirect_to = address
    with pytest.raises(DownloadError, match=r"not (a )?valid"):
        fetch(server, target)
    assert_only(target, GOOD)


def test_a_malformed_proxy(target, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http:proxy.example")
    with pytest.raises(DownloadError, match="not valid"):
        download("https://models.example/m", target, accept=lambda p: None, backoff_s=0.0)
    assert_only(target, GOOD)
