"""Latency and throughput of a bare model, as in the Model Zoo's table."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from efv2_ros.classify.model import Model
from efv2_ros.vision.planes import Nv12Planes

THREADS = (1, 4, 8)
"""Threads that infer at once: 1 and 4 as in the zoo's table, 8 as the X5 has CPU cores."""

_WARM_UP = 5
_GREY = 128


@dataclass(frozen=True)
class Load:
    """One row of the table: threads that infer as fast as they can.

    Attributes:
        threads: Number of threads.
        frames: Inferences of all threads together.
        latency: Mean milliseconds of an inference as its thread sees it.
        latency_p50: Median of the same, in milliseconds.
        latency_p99: 99th percentile of the same, in milliseconds.
        fps: Inferences a second of all threads together.
    """

    threads: int
    frames: int
    latency: float
    latency_p50: float
    latency_p99: float
    fps: float

    def as_dict(self) -> dict[str, Any]:
        """All figures as plain values for JSON."""
        return asdict(self)


def measure(model: Model, threads: int, frames: int = 200) -> Load:
    """Infer from `threads` threads at once, on an image that is in the model's input already.

    As in `hrt_model_exec perf`, neither images nor results are processed.

    Args:
        model: A model with at least `threads` slots.
        threads: Number of threads.
        frames: Inferences of each thread, after some to warm up.

    Raises:
        InferenceError: An inference failed.
    """
    durations = np.zeros((threads, frames))
    spans = np.zeros((threads, 2))
    stopped = threading.Event()
    barrier = threading.Barrier(threads)

    def caller(index: int) -> None:
        try:
            with model.runtime.slot() as slot:
                _fill(slot.nv12)
                for _ in range(_WARM_UP):
                    if stopped.is_set():
                        return
                    slot.commit()
                    slot.infer()
                barrier.wait()
                start = last = time.perf_counter()
                for frame in range(frames):
                    if stopped.is_set():
                        return
                    slot.commit()
                    slot.infer()
                    now = time.perf_counter()
                    durations[index, frame] = now - last
                    last = now
                spans[index] = start, last
        except threading.BrokenBarrierError:
            pass  # another thread failed, and said why
        except Exception:
            barrier.abort()
            raise

    # Not Thread.join: after a Ctrl-C in it, Python 3.10 takes a running thread for an ended one.
    with ThreadPoolExecutor(threads) as pool:  # all threads have ended when this block ends
        calls = [pool.submit(caller, index) for index in range(threads)]
        try:
            wait(calls)
        except BaseException:  # Ctrl-C: the threads would go on, and the process with them
            stopped.set()
            barrier.abort()
            raise
    for call in calls:
        call.result()
    p50, p99 = np.percentile(durations, (50, 99)) * 1e3
    return Load(
        threads=threads,
        frames=durations.size,
        latency=float(durations.mean() * 1e3),
        latency_p50=float(p50),
        latency_p99=float(p99),
        fps=float(durations.size / (spans[:, 1].max() - spans[:, 0].min())),
    )


def _fill(planes: Nv12Planes) -> None:
    for plane in planes:
        plane.fill(_GREY)
