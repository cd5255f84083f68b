"""Benchmark part `postprocess`: softmax and top-k, beside softmax and a full sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.benchmark import baseline
from efv2_ros.benchmark.interleave import interleaved
from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.report import Column, Distribution, Part, Table
from efv2_ros.classify.postprocess import TopK

_CLASSES, _BEST = 1000, 5
_COLD_BYTES = 48 << 20
_COLUMNS = (
    Column("caches", "caches"),
    Column("baseline_us", "baseline (us)", ".1f"),
    Column("top_k_us", "TopK (us)", ".1f"),
    Column("ratio", "x", ".2f"),
)
_NOTE = (
    f"Medians of calls in turn, {_CLASSES} logits, best {_BEST}. Baseline: NumPy's softmax and a "
    "sort of all scores. x: how many times faster. After an inference the caches are cold: there, "
    f"{_COLD_BYTES >> 20} MiB are read before each call."
)


def run(options: BenchOptions) -> Part:
    """Measure with cold and with warm caches."""
    random = np.random.default_rng(0)
    logits = list(random.normal(0, 3, (64, _CLASSES)).astype(np.float32))
    filler = np.ones(_COLD_BYTES, np.uint8)
    top_k = TopK(_CLASSES, _BEST)
    seconds = options.duration(5.0, 0.3)
    rows: list[dict[str, Any]] = []
    distributions = []

    def cold(value: NDArray[np.float32]) -> NDArray[np.float32]:
        filler.max()
        return value

    states: dict[str, Callable[[Any], Any]] = {"cold": cold, "warm": lambda value: value}
    for caches, prepare in states.items():
        options.on_notice(f"postprocessing with {caches} caches")
        times = interleaved([baseline.top_k, top_k], logits, seconds, prepare=prepare)
        base, ours = np.median(times, axis=1) * 1e3
        rows.append(
            {
                "caches": caches,
                "rounds": times.shape[1],
                "baseline_us": float(base),
                "top_k_us": float(ours),
                "ratio": float(base / ours),
            }
        )
        series = {"baseline": times[0], "TopK": times[1]}
        distributions.append(Distribution(f"postprocessing, {caches} caches", series))
    return Part([Table("Logits to the best classes", _COLUMNS, rows, _NOTE)], distributions)
