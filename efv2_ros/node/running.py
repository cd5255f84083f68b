"""Runs a node as a program: signals, spinning, the end and the exit status."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions, uninstall_signal_handlers

from efv2_ros.errors import Efv2Error

NodeT = TypeVar("NodeT", bound=Node)

FAILED, MISUSED = 1, 2
"""Exit statuses after an error with a message for people: of the program; of its command line."""


def run(
    name: str,
    make: Callable[[], NodeT],
    work: Callable[[NodeT, Executor], None],
    *,
    args: list[str] | None = None,
) -> int:
    """Run a node until its work is done, or until SIGINT or SIGTERM.

    A signal shuts the ROS context down, from a thread of rclpy's own: everything that waits must
    poll `context.ok()`, and nothing is interrupted by a KeyboardInterrupt. Any further signals
    change nothing; `ros2 launch` sends SIGINT to processes that got it from the terminal too.

    A process that was started with SIGINT ignored, as a shell script starts a job in the
    background, keeps ignoring it, as Unix programs do; it ends by SIGTERM. rclpy by itself would
    not ignore it.

    For programs: the handling of signals is not restored at the end.

    Args:
        name: The program's name, for error messages.
        make: Makes the node, once ROS is initialised.
        work: What is done with the node, which the executor has; returns early, or raises, once
            the context is shut down.
        args: The command line; None for `sys.argv`.

    Returns:
        The exit status: 0, `FAILED` or `MISUSED`.
    """
    was_signalled = _note_signals()
    try:
        _initialise(args)
    except Exception as error:  # rclpy's own exceptions for wrong arguments have no common class
        print(f"{name}: {error}", file=sys.stderr)
        return MISUSED
    if was_signalled():  # before rclpy listened
        rclpy.try_shutdown()
    node: NodeT | None = None
    try:
        executor = SingleThreadedExecutor()
        node = make()
        executor.add_node(node)
        work(node, executor)
    except ExternalShutdownException:
        pass
    except ParameterException as error:
        print(f"{name}: {error.args[0]}", file=sys.stderr)
        return MISUSED
    except Efv2Error as error:
        print(f"{name}: {error}", file=sys.stderr)
        return FAILED
    except Exception:
        if rclpy.ok():
            raise  # else it comes of the context, which was shut down in the middle of something
    finally:
        _ignore_signals()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _note_signals() -> Callable[[], bool]:
    """Have SIGINT and SIGTERM be noted and do nothing else, until rclpy handles them.

    A plain flag, not an event: a second signal may interrupt the handler of the first, and would
    wait for the event's lock without end.

    Returns:
        Whether a signal came.
    """
    signalled = False

    def note(*_: Any) -> None:
        nonlocal signalled
        signalled = True

    if not _is_sigint_ignored():
        signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    return lambda: signalled


def _is_sigint_ignored() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def _initialise(args: list[str] | None) -> None:
    """Initialise ROS; from then on a signal shuts the context down.

    rclpy's handlers call those of Python, which were there before, as well.
    """
    handled = SignalHandlerOptions.SIGTERM if _is_sigint_ignored() else SignalHandlerOptions.ALL
    rclpy.init(args=args, signal_handler_options=handled)


def _ignore_signals() -> None:
    """Let the program end undisturbed: the interpreter's own end takes some 0.1 s as well."""
    uninstall_signal_handlers()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
