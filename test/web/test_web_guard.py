"""Who may look: tokens, names of the server, origins, and the options that ask for a token."""

import pytest

from efv2_ros.web.guard import Guard, is_same_origin
from efv2_ros.web.options import WebError, WebOptions, is_loopback

TOKEN = "correct horse"


def test_without_a_token_everybody_is_admitted():
    assert Guard("", "127.0.0.1").admits("", "")
    assert Guard("", "127.0.0.1").admits("x", "y")


def test_a_token_or_its_cookie_admits():
    guard = Guard(TOKEN, "0.0.0.0")
    assert guard.admits(TOKEN, "")
    assert guard.admits("", guard.cookie)
    assert TOKEN not in guard.cookie
    for token in ("", TOKEN[:-1], f"{TOKEN} ", TOKEN.upper(), guard.cookie, "\udcff"):
        assert not guard.admits(token, "")
    for cookie in ("", TOKEN, guard.cookie[:-1], Guard("another token", "").cookie):
        assert not guard.admits("", cookie)


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("127.0.0.1:8000", True), ("localhost:9000", True), ("localhost", True),
        ("[::1]:8000", True), ("LOCALHOST:1", True), ("127.5.0.1", True),
        ("evil.example:8000", False), ("192.168.1.5:8000", False), ("localhost.evil", False),
        ("", False), ("127.0.0.1:8000:8000", False), ("[::1", False), ("a b", False),
        ("127.0.0.1:", False), ("localhost;x", False), ("127.0.0.1\n", False),
    ],
)  # fmt: skip
def test_without_a_token_the_server_has_only_its_own_names(host, is_known):
    assert Guard("", "127.0.0.1").knows_host(host) is is_known


def test_with_a_token_every_name_will_do():
    guard = Guard(TOKEN, "0.0.0.0")
    assert guard.knows_host("robot.lab.example:8000") and guard.knows_host("192.168.1.5")
    assert not guard.knows_host("a b") and not guard.knows_host("x; script-src *")


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        (None, True), ("http://robot:8000", True), ("https://Robot:8000", True),
        ("http://robot", False), ("http://robot:8001", False), ("null", False), ("", False),
        ("http://evil.example", False), ("http://robot:8000.evil.example", False),
        ("http://[", False),
    ],
)  # fmt: skip
def test_requests_come_of_the_page_itself(origin, is_own):
    assert is_same_origin(origin, "robot:8000") is is_own


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_needs_no_token(host):
    assert is_loopback(host)
    assert WebOptions(host=host).token == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "robot", "", "localhost.lab"])
def test_other_machines_need_a_token(host):
    assert not is_loopback(host)
    with pytest.raises(WebError, match="give a token"):
        WebOptions(host=host)
    assert WebOptions(host=host, token=TOKEN).host == host


def test_a_short_token_is_refused():
    with pytest.raises(WebError, match="at least 8 characters"):
        WebOptions(token="1234567")
