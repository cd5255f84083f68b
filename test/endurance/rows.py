"""What every check of `scripts/endurance` is given, and what it gives back: a row of the table."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Length:
    """How long a check runs, and with which random numbers.

    Attributes:
        share: Length of the run, as a share of the full one; 1.0 is an hour of all checks.
        seed: Of every random number that the check draws.
    """

    share: float = 1.0
    seed: int = 0

    def count(self, full: int, least: int = 1) -> int:
        """How often to do what the full run does `full` times."""
        return max(least, round(full * self.share))

    def seconds(self, full: float, least: float = 1.0) -> float:
        """How long to do what the full run does for `full` seconds."""
        return max(least, full * self.share)

    def random(self, name: str) -> random.Random:
        """Random numbers of one check, which do not depend on which others run."""
        return random.Random(f"{self.seed}/{name}")


@dataclass
class Row:
    """What came of a check.

    Attributes:
        name: What was done.
        unit: What is counted: `messages`, `inferences`, `model swaps`.
        count: How many of them.
        failures: A sentence for each thing that must not happen; empty is what everybody wants.
        figures: What was measured beside: name and value with its unit.
        seconds: How long it took.
    """

    name: str
    unit: str
    count: int = 0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


Check = Callable[[Length], Row]
"""Does something many times; an exception is a defect of the check itself."""


def timed(check: Check, length: Length) -> Row:
    """Run a check and note how long it took."""
    start = time.monotonic()
    row = check(length)
    row.seconds = time.monotonic() - start
    return row
