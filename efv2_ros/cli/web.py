"""`efv2 web`: a page in the browser beside a running classifier."""

from __future__ import annotations

import sys
from typing import Any

import click

from efv2_ros.classify.options import NODE
from efv2_ros.cli.console import output
from efv2_ros.cli.options import FiniteRange, ros_is_missing
from efv2_ros.web.options import TOKEN_VARIABLE, WebOptions

_ROS_ARGUMENTS = "--ros-args"


@click.command()
@click.option(
    "--classifier",
    metavar="NAME",
    default=NODE,
    show_default=True,
    help="Full name of the classifier.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; 0.0.0.0 lets other machines look and needs --token.",
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen at; 0 takes a free one.",
)
@click.option(
    "--token",
    default="",
    envvar=TOKEN_VARIABLE,
    show_envvar=True,
    help="What a browser must know to look.",
)
@click.option(
    "--allow-control",
    is_flag=True,
    help="Let the page change the model and switch the classifier on and off.",
)
@click.option(
    "--fps",
    metavar="N",
    default=10.0,
    show_default=True,
    type=FiniteRange(0.1, 60.0),
    help="Most pictures a second of each camera.",
)
@click.option(
    "--width",
    metavar="PIXELS",
    default=640,
    show_default=True,
    type=click.IntRange(16, 4096),
    help="Largest width of a picture.",
)
@click.pass_obj
def web(ros_arguments: list[str] | None, /, classifier: str, **options: Any) -> None:
    """Show a running classifier in the browser.

    One page for all cameras of the node: the live picture, the five best classes, what was seen in
    the last minute, latencies, FPS, dropped images, and the board's BPU load and temperature. The
    page needs no internet. Images are subscribed to while somebody looks, and not otherwise.

    Only this machine can look, unless --host and --token are given. The token is part of the
    address: http://HOST:PORT/?token=TOKEN.

    SIGINT (Ctrl-C) and SIGTERM end the command; the exit status is 0.
    """
    what = WebOptions(classifier=f"/{classifier.strip('/')}", **options)
    try:
        from efv2_ros.web.session import serve
    except ImportError as error:
        if error.name == "aiohttp":
            raise click.ClickException(
                "the page needs aiohttp: sudo apt install python3-aiohttp, or pip install aiohttp"
            ) from error
        raise ros_is_missing(error) from error

    def on_ready(port: int) -> None:
        host = f"[{what.host}]" if ":" in what.host else what.host
        token = "?token=TOKEN" if what.token else ""
        output.print(f"the page is at http://{host}:{port}/{token}", soft_wrap=True)

    serve(what, on_ready, ros_arguments or ())


def main() -> None:
    """Run the command as `ros2 run` and `ros2 launch` do, with arguments for ROS at the end."""
    from efv2_ros.cli.main import main as efv2

    arguments = sys.argv[1:]
    at = arguments.index(_ROS_ARGUMENTS) if _ROS_ARGUMENTS in arguments else len(arguments)
    efv2(
        ["web", *arguments[:at]],
        prog_name="efv2",
        obj=arguments[at:],
        standalone_mode=True,
    )
