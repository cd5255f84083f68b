"""Tasks that tests give to workers, which import them by name."""

import os
import signal
import time
from pathlib import Path


def double(number):
    return 2 * number


def fail(message):
    raise ValueError(message)


def pid():
    time.sleep(0.3)  # so that every process gets one
    return os.getpid()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(marker):
    """Kill the own process, the first time."""
    path = Path(marker)
    if path.exists():
        return "lived"
    path.touch()
    die()


def wait_forever(marker):
    Path(marker).write_text(str(os.getpid()))
    time.sleep(3600)
