"""glibc's malloc, told to keep an image's memory for the next one.

By itself it returns big buffers to the kernel when they are freed, and the kernel clears every
page anew for the next image: at 1080p that is most of what receiving an image costs.
"""

from __future__ import annotations

import ctypes
import os

OFF_VARIABLE = "EFV2_KEEP_MEMORY"
"""Environment variable; `0` leaves malloc as it is."""

_KEPT = 256 << 20
"""Bytes that may lie free at the end of the heap before they are returned."""

_MMAP_THRESHOLD = 32 << 20
"""Larger buffers are mapped by themselves and returned when freed; the most malloc takes."""

_DEFAULT = 128 << 10
"""Both thresholds as glibc starts with them (mallopt(3))."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_memory() -> str:
    """Have malloc keep freed memory, unless the user's environment says otherwise.

    Other C libraries are left alone.

    Returns:
        What was done, for the log.
    """
    if os.environ.get(OFF_VARIABLE) == "0":
        return f"malloc is left as it is: {OFF_VARIABLE}=0"
    own = [name for name in os.environ if name.startswith("MALLOC_")]
    if "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        own.append("GLIBC_TUNABLES")
    if own:
        return f"malloc is left as it is: the environment has {', '.join(sorted(own))}"
    return _set(_KEPT, _MMAP_THRESHOLD)


def return_memory() -> str:
    """Have malloc return freed memory to the system, as it does when a process starts.

    Returns:
        What was done, for the log.
    """
    return _set(_DEFAULT, _DEFAULT)


def _set(trim: int, mmap: int) -> str:
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return "malloc is left as it is: it is not glibc's"
    done = library.mallopt(_M_MMAP_THRESHOLD, mmap) and library.mallopt(_M_TRIM_THRESHOLD, trim)
    return (
        f"malloc {'keeps' if done else 'refused to keep'} up to {trim >> 10} KiB of freed memory, "
        f"in buffers of up to {mmap >> 10} KiB"
    )
