"""Which parts there are, what a run of them is told, and the run itself."""

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
    }
)
"""Module of every part, whose `run(plan)` returns a `Part`. Imported when it is its turn: some
need ROS."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and for how long.

    Attributes:
        request: The model for those parts that run one.
        quick: Show that everything works, in seconds; the figures mean little.
        seconds: Of each measurement; None for what suits the part.
        slots: Of the node, one measurement for each; empty for what suits the part.
        say: Told what is being measured.
    """

    request: ModelRequest = field(default_factory=ModelRequest)
    quick: bool = False
    seconds: float | None = None
    slots: tuple[int, ...] = ()
    say: Callable[[str], None] = lambda text: None

    def duration(self, usual: float, quick: float) -> float:
        """Seconds of a measurement that usually takes so long."""
        return self.seconds or (quick if self.quick else usual)


def run(plan: Plan, names: Iterable[str] = PARTS) -> Report:
    """Measure one part after the other; one that cannot be measured does not stop the rest.

    Args:
        plan: What all parts are told.
        names: Keys of `PARTS`.
    """
    environment = describe(plan.request)  # first: rclpy may start the interpreter anew
    return Report(environment, {name: _part(plan, name) for name in dict.fromkeys(names)})


def _part(plan: Plan, name: str) -> Part:
    plan.say(name)
    try:
        part: Part = import_module(PARTS[name]).run(plan)
        return part
    except ImportError as error:
        return Part(problem=f"{error}; ROS 2 has to be sourced for this part")
    except Efv2Error as error:
        plan.say(str(error))  # in full: a node's last words may follow the first line
        return Part(problem=str(error).splitlines()[0])
