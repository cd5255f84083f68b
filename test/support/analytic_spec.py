"""The analytic bench for workers, which import it by name."""

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from analytic_bench import AnalyticBench
from small_network import small_network

from efv2_ros.quantize.space import Space
from efv2_ros.quantize.variants import wide_groups
from efv2_ros.toolchain.environment import ToolchainUnavailableError


@dataclass(frozen=True)
class AnalyticSpec:
    """What each worker's bench is like.

    Attributes:
        folder: Gets a file for each bench that is opened.
        salt: Part of the keys; another one is another model.
        fatal: A part of the network; a trial of it alone at 16 bits kills the process.
        has_toolchain: Whether trials can be made.
    """

    folder: str
    salt: str = ""
    fatal: str = ""
    has_toolchain: bool = True

    @contextmanager
    def open(self):
        (Path(self.folder) / f"{os.getpid()}_{os.urandom(4).hex()}").touch()
        yield Bench(self)


class Bench(AnalyticBench):
    def __init__(self, spec):
        super().__init__(Space(small_network()), self.meets_fate)
        self.spec = spec

    def key(self, recipe, kind):
        return self.spec.salt + super().key(recipe, kind)

    def meets_fate(self, recipe):
        if not self.spec.has_toolchain:
            raise ToolchainUnavailableError("the toolchain is not installed")
        if wide_groups(recipe, self.space.parts(recipe)) == {self.spec.fatal}:
            os.kill(os.getpid(), signal.SIGKILL)
        return False
