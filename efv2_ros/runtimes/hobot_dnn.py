"""The X5's BPU through D-Robotics' `hobot_dnn.pyeasy_dnn`, a C extension over libdnn.

The extension trusts its caller: `forward` reads as many bytes as an array has elements from where
the array begins, whatever its type and strides, and what is no array makes it infer again on the
image before. It also holds the GIL, waits without a limit, never frees a model, and loses a task
of the BPU with an inference that fails there. So here every input is our own buffer of the right
size, results are read under a lock, and a file is loaded once.
"""

from __future__ import annotations

import math
import threading
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.runtimes.base import (
    DeviceLostError,
    ImageInput,
    InferenceError,
    ModelLoadError,
    RunOptions,
    Runtime,
    RuntimeInfo,
    RuntimeUnavailableError,
)
from efv2_ros.vision.planes import Nv12Planes

MODULES = ("hobot_dnn", "hobot_dnn_rdkx5")
"""The package on the board, and the one that PyPI calls hobot-dnn-rdkx5."""

_TASKS = 32
"""As many tasks may be open in a process, says libdnn's documentation."""


class HobotDnnRuntime(Runtime):
    """A compiled model on the BPU, one inference at a time."""

    def __init__(self, path: Path, image: ImageInput, options: RunOptions) -> None:
        name, module = _import()
        network = _loaded(module, path)
        classes = network.check(path, image)
        super().__init__(
            RuntimeInfo("hobot_dnn", _version(name), "BPU", classes),
            image,
            [_Slot(network, image, options) for _ in range(options.slots)],
        )


def probe() -> str:
    """Name and version of what would run a model.

    Raises:
        RuntimeUnavailableError: Neither module can be imported; the message has the cure.
    """
    name, _ = _import()
    return f"{name} {_version(name)}"


def load(path: Path, image: ImageInput, options: RunOptions) -> HobotDnnRuntime:
    """Load a compiled model; see `open_runtime`."""
    return HobotDnnRuntime(path, image, options)


class _Network:
    """A model of the extension. It is never freed, so there is one for each file."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # A model's outputs are live views: another forward in between would change them.
        self._lock = threading.Lock()
        self._failures = 0

    def check(self, path: Path, image: ImageInput) -> int:
        """Number of classes; ModelLoadError unless it takes NV12 and gives floats."""
        inputs, outputs = self._model.inputs, self._model.outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelLoadError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs and not one each"
            )
        source, result = inputs[0].properties, outputs[0].properties
        if source.tensor_type != "NV12":
            raise ModelLoadError(
                f"{path} takes input of type {source.tensor_type} and not NV12: the runtime "
                "libdnn takes NV12_SEPARATE too; any other needs input_type_rt: nv12"
            )
        shape = tuple(source.shape)
        size = shape[1:3] if source.layout == "NHWC" else shape[2:4]
        if len(shape) != 4 or shape[0] != 1 or size != (image.height, image.width):
            wanted = f"{image.width}x{image.height}"
            raise ModelLoadError(f"{path} takes NV12 of shape {shape} and not one {wanted} image")
        # It hands out integers as they are, and nothing of what has not four dimensions.
        if result.dtype != "float32" or len(result.shape) != 4:
            raise ModelLoadError(
                f"{path} gives {result.dtype} of shape {tuple(result.shape)}, of which hobot_dnn "
                "makes no logits: use the runtime libdnn"
            )
        return math.prod(result.shape)

    def forward(self, nv12: NDArray[np.uint8], options: RunOptions) -> NDArray[np.float32]:
        core = 0 if options.bpu_core < 0 else 1 << options.bpu_core
        with self._lock:
            try:
                outputs = self._model.forward(nv12, core_id=core, priority=options.bpu_priority)
                logits: NDArray[np.float32] = outputs[0].buffer
            except Exception as error:
                raise self._failure(f"hobot_dnn: {_cause(error)}") from error
            self._failures = 0
        return logits.reshape(-1)

    def _failure(self, reason: str) -> InferenceError:
        self._failures += 1
        if self._failures < _TASKS:
            return InferenceError(reason)
        return DeviceLostError(
            f"{reason}, {self._failures} times in a row. It loses a task with each failure and "
            f"has {_TASKS}, so only a new process can help: start the node again"
        )


class _Slot:
    """A buffer for images; all slots share one model."""

    def __init__(self, network: _Network, image: ImageInput, options: RunOptions) -> None:
        self._network, self._options = network, options
        # The whole of what forward reads: 8-bit elements, side by side, as many as it takes.
        self._buffer = np.empty(image.nv12_shape, np.uint8)
        self.nv12 = Nv12Planes.of(self._buffer)

    def commit(self) -> None:
        """Nothing: `forward` takes the image when it is called."""

    def infer(self) -> NDArray[np.float32]:
        return self._network.forward(self._buffer, self._options)


_networks: dict[tuple[str, int, int], _Network] = {}
_loading = threading.Lock()


def _loaded(module: Any, path: Path) -> _Network:
    """The model in a file, loaded once as long as the file stays the same."""
    try:
        stat = path.stat()
        key = (str(path.resolve()), stat.st_mtime_ns, stat.st_size)
        with _loading:
            if key not in _networks:
                models = module.load(str(path))
                if len(models) != 1:
                    raise ModelLoadError(f"{path} holds {len(models)} models and not one")
                _networks[key] = _Network(models[0])
            return _networks[key]
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(f"{path} cannot be loaded: hobot_dnn: {_cause(error)}") from error


def _cause(error: BaseException) -> BaseException:
    """What went wrong: the extension wraps it in a SystemError that says nothing."""
    return error.__cause__ if isinstance(error, SystemError) and error.__cause__ else error


def _import() -> tuple[str, Any]:
    """Name and module of the first of `MODULES` that works."""
    problems = []
    for name in MODULES:
        try:
            return name, import_module(f"{name}.pyeasy_dnn")
        except Exception as error:  # a C extension on the wrong machine raises many things
            problems.append(error)
    there = [each for each in problems if not isinstance(each, ModuleNotFoundError)]
    if there and int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeUnavailableError(
            f"hobot_dnn needs numpy < 2 and this is {np.__version__} ({there[0]}): "
            "pip install 'numpy<2'"
        )
    if there:
        raise RuntimeUnavailableError(
            f"hobot_dnn cannot be imported ({there[0]}): it works on an RDK X5 only"
        )
    raise RuntimeUnavailableError(
        "hobot_dnn is not installed: it is part of RDK OS; elsewhere on an RDK X5, "
        "pip install hobot-dnn-rdkx5 (Python 3.10)"
    )


def _version(module: str) -> str:
    distribution = "hobot-dnn-rdkx5" if module == "hobot_dnn_rdkx5" else module
    try:
        return version(distribution)
    except PackageNotFoundError:  # a file that came with the board's image
        return "of unknown version"
