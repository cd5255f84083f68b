"""Interleaved timing: functions are called in turn, so that a busy machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def interleaved(
    contenders: Sequence[Callable[[Any], object]],
    inputs: Sequence[Any],
    seconds: float,
    *,
    fewest: int = 3,
    prepare: Callable[[Any], Any] = lambda value: value,
) -> NDArray[np.float64]:
    """Time functions in turn. Each call gets the next input; after the last, the first again.

    Args:
        contenders: Functions to time. Each is called once before the first measurement.
        inputs: Inputs of the calls. Many large ones measure without caches.
        seconds: Duration of the measurement.
        fewest: Minimum number of rounds, even if they take longer than `seconds`.
        prepare: Makes a call's argument from an input; this time is not measured.

    Returns:
        Milliseconds, float64, shape (contenders, rounds).
    """
    for each in contenders:
        each(prepare(inputs[-1]))
    count, calls = len(contenders), 0
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < fewest or time.perf_counter() < end:
        durations = [0.0] * count
        for place in range(count):
            # Rotate the order: no function always finds the caches as the same other left them.
            turn = (place + len(rounds)) % count
            value = prepare(inputs[calls % len(inputs)])
            calls += 1
            start = time.perf_counter()
            contenders[turn](value)
            durations[turn] = time.perf_counter() - start
        rounds.append(durations)
    return np.array(rounds).T * 1e3
