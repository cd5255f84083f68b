"""One run of the page: two threads talk to ROS, and the event loop serves the browsers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.context import Context
from rclpy.node import Node

from efv2_ros.client.ros import ros_context
from efv2_ros.models.catalog import Catalog
from efv2_ros.signals import catch_stop
from efv2_ros.web.eyes import Eyes
from efv2_ros.web.hub import Hub
from efv2_ros.web.options import WebOptions
from efv2_ros.web.server import WebServer
from efv2_ros.web.watcher import Watcher

_NICENESS = 19
"""Where the processor is short, the classifier comes first."""

_POLL_S = 0.05
_END_S = 0.4
"""How long a thread may take to end."""


def serve(
    options: WebOptions, on_ready: Callable[[int], None], ros_arguments: Sequence[str] = ()
) -> None:
    """Serve the page until SIGINT or SIGTERM comes; the process gives way to others.

    Args:
        options: What is shown, and to whom.
        on_ready: Called with the port once browsers can connect.
        ros_arguments: Arguments for ROS, from `--ros-args` on.

    Raises:
        RosError: The middleware does not start.
        WebError: The port cannot be had.
    """
    os.nice(_NICENESS)
    sizes = [spec.size for spec in Catalog.load()] if options.allow_control else []
    with (
        catch_stop(again=signal.SIG_IGN) as should_stop,
        ros_context(ros_arguments, publishes_images=False) as context,
    ):
        asyncio.run(_serve(options, sizes, context, on_ready, should_stop))


async def _serve(
    options: WebOptions,
    sizes: Sequence[str],
    context: Context,
    on_ready: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> None:
    loop = asyncio.get_running_loop()

    def show(camera: str, jpeg: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(hub.show, camera, jpeg)

    watcher = Watcher(
        _node("efv2_web", context),
        options.classifier,
        sizes=sizes,
        faults=lambda: eyes.faults,
    )
    eyes = Eyes(
        _node("efv2_web_eyes", context),
        width=options.width,
        fps=options.fps,
        views=watcher.wanted_views,
        show=show,
    )
    hub = Hub(watcher)
    server = WebServer(options, hub, watcher)
    with _running(watcher), _running(eyes):
        try:
            on_ready(await server.start())
            while not should_stop():
                await asyncio.sleep(_POLL_S)
        finally:
            await server.close()


def _node(name: str, context: Context) -> Node:
    return rclpy.create_node(
        name, context=context, enable_rosout=False, start_parameter_services=False
    )


@contextmanager
def _running(worker: Watcher | Eyes) -> Iterator[None]:
    """Run a worker in a thread of its own until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(
        target=worker.run, args=(stop,), name=type(worker).__name__, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END_S)
        if not thread.is_alive():
            worker.close()
