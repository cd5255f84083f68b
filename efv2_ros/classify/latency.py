"""Latency of each stage of a frame, as percentiles over the recent past."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STAGES = ("wait", "convert", "infer", "postprocess", "publish")
"""What a frame goes through, in order. `END_TO_END` spans them and the transport before."""

END_TO_END = "end_to_end"

DROPPED_KEY = "dropped: "
"""Before the cause, in the diagnostics' count of the frames that met it."""


class Percentiles(NamedTuple):
    """A distribution of durations, in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float

    def __str__(self) -> str:
        return " / ".join(f"{value:.2f}" for value in self)

    @classmethod
    def of(cls, seconds: Sequence[float] | NDArray[np.float64]) -> Percentiles:
        """The distribution of durations given in seconds."""
        return cls(*(np.percentile(seconds, (50, 95, 99, 100)) * 1e3).tolist())


class LatencyWindow:
    """The last `capacity` durations of each stage; safe to use from several threads."""

    def __init__(self, capacity: int = 1000) -> None:
        self._capacity = capacity
        self._samples: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def record(self, stage: str, seconds: float) -> None:
        """Add one duration of a stage."""
        with self._lock:
            samples = self._samples.setdefault(stage, np.zeros(self._capacity))
            count = self._counts.get(stage, 0)
            samples[count % self._capacity] = seconds
            self._counts[stage] = count + 1

    def percentiles(self) -> dict[str, Percentiles]:
        """The distribution of every stage that has been recorded."""
        with self._lock:
            recent = {
                stage: self._samples[stage][: min(count, self._capacity)].copy()
                for stage, count in self._counts.items()
            }
        return {stage: Percentiles.of(samples) for stage, samples in recent.items()}

    def clear(self) -> None:
        """Forget everything, as after a change of model."""
        with self._lock:
            self._samples.clear()
            self._counts.clear()
