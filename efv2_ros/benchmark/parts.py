"""The parts of `efv2 bench`, the options of a run, and the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType

from efv2_ros.benchmark.environment import describe
from efv2_ros.benchmark.report import Part, Report
from efv2_ros.classify.options import ModelRequest
from efv2_ros.errors import Efv2Error

PARTS = MappingProxyType(
    {
        "conversion": "efv2_ros.benchmark.conversion",
        "transport": "efv2_ros.benchmark.transport",
        "postprocess": "efv2_ros.benchmark.postprocess",
        "node": "efv2_ros.benchmark.node",
        "overload": "efv2_ros.benchmark.overload",
        "device": "efv2_ros.benchmark.device",
        "cameras": "efv2_ros.benchmark.cameras",
        "start": "efv2_ros.benchmark.start",
    }
)
"""Module of every part, with a function `run(options) -> Part`. Imported when its turn comes: some
need ROS."""


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and for how long.

    Attributes:
        request: The model, for parts that run one.
        quick: Whether to show in seconds that everything works; the figures mean little.
        seconds: Duration of each measurement; None for what suits the part.
        slots: Slots of the node, one measurement for each; empty for what suits the part.
        on_notice: Called with what is being measured, and with what goes wrong.
    """

    request: ModelRequest = field(default_factory=ModelRequest)
    quick: bool = False
    seconds: float | None = None
    slots: tuple[int, ...] = ()
    on_notice: Callable[[str], None] = lambda text: None

    def duration(self, usual: float, quick: float) -> float:
        """Duration of a measurement in seconds, given the usual one and that of a quick run."""
        return self.seconds or (quick if self.quick else usual)


def run(options: BenchOptions, names: Iterable[str] = PARTS) -> Report:
    """Measure one part after the other; one that cannot be measured does not stop the rest.

    Args:
        options: Given to every part.
        names: Keys of `PARTS`.
    """
    environment = describe(options.request)  # first: importing rclpy may restart Python
    return Report(environment, {name: _part(options, name) for name in dict.fromkeys(names)})


def _part(options: BenchOptions, name: str) -> Part:
    options.on_notice(name)
    try:
        part: Part = import_module(PARTS[name]).run(options)
        return part
    except ImportError as error:
        return Part(problem=f"{error}; ROS 2 has to be sourced for this part")
    except Efv2Error as error:
        options.on_notice(str(error))  # in full: a node's last words may follow the first line
        return Part(problem=str(error).splitlines()[0])
