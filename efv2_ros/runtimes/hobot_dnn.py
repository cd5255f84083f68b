"""Runtime `hobot_dnn`: the X5's BPU through D-Robotics' C extension `hobot_dnn.pyeasy_dnn`.

The extension does not check its input: `forward` reads one byte for each element of an array from
its beginning, whatever its type and strides, and for an object that is no array it infers the last
image again. It also holds the GIL, waits without a limit, never frees a model, and leaks a BPU
task with each inference that fails. So this runtime passes only its own buffers of the right size,
reads results under a lock, and loads each file once.
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
"""Package names: the one on the board, and that of PyPI's hobot-dnn-rdkx5."""

_TASKS = 32
"""Number of tasks that a process may have open, from libdnn's documentation."""


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
    """Name the module that would run a model, and its version.

    Raises:
        RuntimeUnavailableError: Neither module can be imported; the message has the fix.
    """
    name, _ = _import()
    return f"{name} {_version(name)}"


def load(path: Path, image: ImageInput, options: RunOptions) -> HobotDnnRuntime:
    """Load a compiled model; see `open_runtime`."""
    return HobotDnnRuntime(path, image, options)


class _Network:
    """A loaded model. The extension never frees one, so there is one for each file."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # A model's outputs are views of its memory, which the next forward overwrites.
        self._lock = threading.Lock()
        self._failures = 0

    def check(self, path: Path, image: ImageInput) -> int:
        """Check the model and count its classes.

        Raises:
            ModelLoadError: It does not take one NV12 image, or does not return floats.
        """
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
        # The extension returns quantised integers as they are, and only 4-dimensional outputs.
        if result.dtype != "float32" or len(result.shape) != 4:
            raise ModelLoadError(
                f"{path} returns {result.dtype} of shape {tuple(result.shape)}, which hobot_dnn "
                "cannot turn into logits: use the runtime libdnn"
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
            f"{reason}, {self._failures} times in a row. Each failure costs it one of its "
            f"{_TASKS} tasks, so only a new process can help: start the node again"
        )


class _Slot:
    """An image buffer. All slots share one model."""

    def __init__(self, network: _Network, image: ImageInput, options: RunOptions) -> None:
        self._network, self._options = network, options
        # forward reads exactly this many bytes, one after the other.
        self._buffer = np.empty(image.nv12_shape, np.uint8)
        self.nv12 = Nv12Planes.of(self._buffer)

    def commit(self) -> None:
        """Do nothing: `forward` reads the image when it is called."""

    def infer(self) -> NDArray[np.float32]:
        return self._network.forward(self._buffer, self._options)


_networks: dict[tuple[str, int, int], _Network] = {}
_loading = threading.Lock()


def _loaded(module: Any, path: Path) -> _Network:
    """Load the model in a file, unless the same file was loaded before."""
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
    """Unwrap an error: the extension hides it in a SystemError without a message."""
    return error.__cause__ if isinstance(error, SystemError) and error.__cause__ else error


def _import() -> tuple[str, Any]:
    """Import the first of `MODULES` that works; return its name and the module."""
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
