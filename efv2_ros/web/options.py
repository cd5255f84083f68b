"""Options of the page, and what they must be for. Imports neither ROS nor aiohttp."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from efv2_ros.classify.options import NODE
from efv2_ros.errors import Efv2Error

TOKEN_VARIABLE = "EFV2_WEB_TOKEN"
"""Environment variable of the token: other users of a machine can read its command lines."""

_SHORTEST_TOKEN = 8


class WebError(Efv2Error):
    """The page cannot be served."""


@dataclass(frozen=True)
class WebOptions:
    """What is shown, to whom, and how much of it.

    Attributes:
        classifier: Full name of the classifier's node.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        token: What a browser must know; empty if everybody may look.
        allow_control: Whether the page may change the model and switch the classifier off.
        fps: Most pictures a second of each camera.
        width: Largest width of a picture, in pixels.

    Raises:
        WebError: Other machines can reach the host, and there is no token; or the token is short.
    """

    classifier: str = NODE
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    allow_control: bool = False
    fps: float = 10.0
    width: int = 640

    def __post_init__(self) -> None:
        if not self.token and not is_loopback(self.host):
            raise WebError(
                f"with the host '{self.host}', other machines can look through the camera: give a "
                f"token, which the browser must know, with --token or in ${TOKEN_VARIABLE}"
            )
        if self.token and len(self.token) < _SHORTEST_TOKEN:
            raise WebError(
                f"a token has at least {_SHORTEST_TOKEN} characters: others are guessed"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
