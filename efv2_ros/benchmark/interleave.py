"""Functions timed against each other call by call, so that a machine's moods meet them all."""

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
    """Time contenders in turn until time is up; each call gets the next input, over and over.

    Args:
        contenders: Who is timed. Each is called once before.
        inputs: What they are given; many, for caches that do not know them.
        seconds: How long.
        fewest: Rounds, however long they take.
        prepare: Makes what a call is given from an input, outside the time.

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
            # Nobody always comes after the same neighbour's use of the caches.
            turn = (place + len(rounds)) % count
            value = prepare(inputs[calls % len(inputs)])
            calls += 1
            start = time.perf_counter()
            contenders[turn](value)
            durations[turn] = time.perf_counter() - start
        rounds.append(durations)
    return np.array(rounds).T * 1e3
