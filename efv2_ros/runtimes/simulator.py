"""Runtime `simulator`: a compiled model on any x86-64 machine, with the integers of the BPU.

Beside `NAME.bin` there may be `NAME.quantized.onnx`, the quantised model that it was compiled
from. The toolchain's executor runs that one, several times faster than the vendor's simulator runs
the `.bin` itself, and with the same results.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import queue
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.runtimes.base import (
    ImageInput,
    ModelLoadError,
    RunOptions,
    Runtime,
    RuntimeInfo,
    RuntimeUnavailableError,
)
from efv2_ros.runtimes.simulator_worker import Worker, version
from efv2_ros.toolchain.environment import ToolchainUnavailableError
from efv2_ros.vision.planes import Nv12Planes

LEAST_TIMEOUT_S = 60.0
"""Least seconds after which an inference is given up: a busy machine may be this slow, and
`infer_timeout` is meant for a BPU."""

_PAGE = mmap.PAGESIZE
_FIX = "efv2 toolchain install"

_log = logging.getLogger(__name__)


class SimulatorRuntime(Runtime):
    """A compiled model on a simulated BPU; as many inferences at once as slots and cores."""

    def __init__(self, path: Path, image: ImageInput, options: RunOptions) -> None:
        rows, width = image.nv12_shape
        stride = -(-rows * width // _PAGE) * _PAGE
        job = {
            **_model(path), "height": image.height, "width": width, "slots": options.slots,
            "stride": stride, "logits": options.slots * stride, "threads": options.threads,
        }  # fmt: skip
        self._workers: list[Worker] = []
        self._memory = os.memfd_create("efv2_simulator", os.MFD_CLOEXEC)
        timeout = max(options.infer_timeout, LEAST_TIMEOUT_S)
        try:
            for _ in range(min(options.slots, os.cpu_count() or 1)):
                self._workers.append(
                    Worker({**job, "memory": self._memory}, self._memory, timeout)
                )
            answers = [worker.wait_loaded() for worker in self._workers]
            classes, release = answers[0]["classes"], answers[0]["version"]
            memory = mmap.mmap(self._memory, job["logits"] + options.slots * classes * 4)
        except ToolchainUnavailableError as error:
            self._end()
            raise RuntimeUnavailableError(str(error)) from error
        except BaseException:
            self._end()
            raise
        images = [
            np.frombuffer(memory, np.uint8, rows * width, n * stride).reshape(rows, width)
            for n in range(options.slots)
        ]
        logits = np.frombuffer(memory, np.float32, options.slots * classes, job["logits"])
        idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            idle.put(worker)
        super().__init__(
            RuntimeInfo("simulator", release, "simulated BPU", classes),
            image,
            [
                _Slot(n, images[n], logits[n * classes : (n + 1) * classes], idle)
                for n in range(options.slots)
            ],
        )

    def close(self) -> None:
        """See `Runtime.close`. An inference that is running fails."""
        super().close()
        self._end()

    def _end(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1


class _Slot:
    """An image and its logits in memory that all workers share."""

    def __init__(
        self,
        number: int,
        nv12: NDArray[np.uint8],
        logits: NDArray[np.float32],
        idle: queue.SimpleQueue[Worker],
    ) -> None:
        self.nv12 = Nv12Planes.of(nv12)
        self._number, self._logits, self._idle = number, logits, idle

    def commit(self) -> None:
        """Do nothing: the workers read the image where it is."""

    def infer(self) -> NDArray[np.float32]:
        worker = self._idle.get()
        try:
            worker.run(self._number)
        finally:
            self._idle.put(worker)
        return self._logits.copy()


def probe() -> str:
    """Name the versions of the toolchain's simulators.

    Raises:
        RuntimeUnavailableError: The toolchain is not installed or does not work here.
    """
    try:
        return version()
    except ToolchainUnavailableError as error:
        raise RuntimeUnavailableError(str(error)) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[-1]
        raise RuntimeUnavailableError(f"the toolchain does not work ({last}): {_FIX}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeUnavailableError(f"the toolchain does not work ({error}): {_FIX}") from error


def load(path: Path, image: ImageInput, options: RunOptions) -> SimulatorRuntime:
    """Load a compiled model; see `open_runtime`."""
    return SimulatorRuntime(path, image, options)


def _model(path: Path) -> dict[str, Any]:
    """The part of a worker's job that names the model."""
    quantized = path.with_suffix(".quantized.onnx")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    found = quantized.is_file()
    if not found:
        _log.warning(
            "%s is not here, so the vendor's simulator runs %s: that takes several seconds for "
            "each image",
            quantized,
            path.name,
        )
    return {
        "bin": str(path.resolve()),
        "bin_sha256": digest,
        "quantized": str(quantized.resolve()) if found else None,
    }
