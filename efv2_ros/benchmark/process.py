"""CPU time and memory of other processes, as Linux counts them; see proc(5)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Memory of a process, in bytes.

    Attributes:
        rss: All of it that is in RAM.
        pss: The same, with shared pages divided among the processes that have them.
        anonymous: What is not a part of a file.
    """

    rss: int
    pss: int
    anonymous: int


def memory(pid: int) -> Memory:
    """Read the memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    parts = (line.partition(":") for line in lines)
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in parts}
    return Memory(*(kilobytes[name] * 1024 for name in ("Rss", "Pss", "Anonymous")))


def cpu_seconds(pid: int) -> float:
    """Read the CPU time of a process and all its threads."""
    user, system, _ = _ticks(pid)
    return user + system


def age(pid: int) -> float:
    """Compute how long ago a process was started, in seconds, to the hundredth."""
    *_, start = _ticks(pid)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start


def _ticks(pid: int) -> tuple[float, float, float]:
    """Times in user mode and in the kernel, and of the start since boot, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, start = (int(fields[place]) for place in (11, 12, 19))
    tick = os.sysconf("SC_CLK_TCK")
    return user / tick, system / tick, start / tick
