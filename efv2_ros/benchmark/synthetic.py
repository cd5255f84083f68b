"""A simulated accelerator of exact speed, and the node with it as a runtime.

The runtime exists only in processes that run this module.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from efv2_ros.runtimes import base
from efv2_ros.vision.planes import Nv12Planes

NAME = "synthetic"
TASK_S = 0.00504
"""Duration of a task: one over the 198 FPS that the Model Zoo publishes for s0 on the X5."""

FPS = 1 / TASK_S
_CLASSES = 1000


class SerialDevice:
    """Works on one task at a time, in the order in which they are submitted.

    Args:
        seconds: Duration of a task.
        now: Returns a steady time in seconds.
        sleep: Waits for a number of seconds, with the GIL released.
    """

    def __init__(
        self,
        seconds: float,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds, self._now, self._sleep = seconds, now, sleep
        self._lock = threading.Lock()
        self._busy_until = 0.0

    def run(self) -> float:
        """Submit a task, wait for its end, and return when that was."""
        with self._lock:
            end = self._busy_until = max(self._now(), self._busy_until) + self._seconds
        self._sleep(max(0.0, end - self._now()))
        return end


class _Slot:
    def __init__(self, device: SerialDevice, image: base.ImageInput) -> None:
        self.nv12 = Nv12Planes.of(np.empty(image.nv12_shape, np.uint8))
        self._device = device
        self._logits = np.random.default_rng(0).normal(0, 3, _CLASSES).astype(np.float32)

    def commit(self) -> None:
        """Do nothing: the device looks at no image."""

    def infer(self) -> NDArray[np.float32]:
        self._device.run()
        return self._logits.copy()


def probe() -> str:
    """Describe the device."""
    return f"a device of {FPS:.1f} FPS"


def load(path: Path, image: base.ImageInput, options: base.RunOptions) -> base.Runtime:
    """Create a runtime that takes any model file and always returns the same logits."""
    device = SerialDevice(TASK_S)
    return base.Runtime(
        base.RuntimeInfo(NAME, probe(), "none", _CLASSES),
        image,
        [_Slot(device, image) for _ in range(options.slots)],
    )


def model_file(folder: Path) -> Path:
    """Write the smallest file that is accepted as a model."""
    path = folder / "synthetic.bin"
    path.write_bytes(b"\x1a\x00")  # an empty graph, field 3 of runtime.proto's ModelProto
    return path


def main() -> int:
    """Run the node, with this device as `runtime:=synthetic`."""
    kind = base.RuntimeKind("efv2_ros.benchmark.synthetic", "bin")
    base.RUNTIMES = MappingProxyType({**base.RUNTIMES, NAME: kind})
    # Imported only now: its parameters list the runtimes there are at its import.
    from efv2_ros.node import classifier_node

    return classifier_node.main()


if __name__ == "__main__":
    sys.exit(main())
