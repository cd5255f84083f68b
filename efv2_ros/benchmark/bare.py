"""The bare model: inferences in a loop, the baseline of all figures of the node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from efv2_ros.benchmark.perf import Load, measure
from efv2_ros.classify.model import Model, load_model
from efv2_ros.classify.options import ModelRequest

_PROBE_FRAMES = 5


@dataclass
class Bare:
    """Repeated measurements of inferences in a loop, with nothing around them.

    Attributes:
        model: The model.
        callers: Threads that infer at once.
        seconds: Duration of each measurement.
    """

    model: Model
    callers: int
    seconds: float
    _loads: list[Load] = field(default_factory=list)

    def measure(self) -> None:
        """Measure once more."""
        frames = _PROBE_FRAMES
        rate = measure(self.model, self.callers, frames).fps
        frames = max(frames, round(self.seconds * rate / self.callers))
        self._loads.append(measure(self.model, self.callers, frames))

    @property
    def fps(self) -> float:
        """Inferences a second of all callers together; mean of all measurements."""
        return float(np.mean([each.fps for each in self._loads]))

    @property
    def infer_ms(self) -> float:
        """Median milliseconds of an inference as its caller sees it; mean of all measurements."""
        return float(np.mean([each.latency_p50 for each in self._loads]))


@contextmanager
def bare_model(request: ModelRequest, callers: int, seconds: float) -> Iterator[Bare]:
    """Measure a model before and after the block, so that a drift of the machine cancels out.

    Raises:
        Efv2Error: The model cannot be loaded, or fails.
    """
    with closing(load_model(replace(request, slots=callers))) as model:
        bare = Bare(model, callers, seconds)
        bare.measure()
        yield bare
        bare.measure()
