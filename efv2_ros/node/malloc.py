"""Settings of glibc's malloc that keep freed memory for the next image.

By default malloc returns large buffers to the kernel when they are freed, and the kernel clears
every page again for the next image: at 1080p that is most of the cost of receiving one.
"""

from __future__ import annotations

import ctypes
import os

OFF_VARIABLE = "EFV2_KEEP_MEMORY"
"""Environment variable; `0` leaves malloc as it is."""

_KEPT = 256 << 20
"""Free bytes at the end of the heap that are not returned."""

_MMAP_THRESHOLD = 32 << 20
"""Bytes of a buffer from which on it is mapped separately, and returned when freed: the highest
value that malloc accepts."""

_DEFAULT = 128 << 10
"""glibc's initial value of both thresholds; see mallopt(3)."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_memory() -> str:
    """Have malloc keep freed memory, unless the environment has settings of malloc.

    Nothing changes with a C library other than glibc.

    Returns:
        A sentence for the log.
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
    """Restore malloc's initial settings, with which it returns freed memory.

    Returns:
        A sentence for the log.
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
