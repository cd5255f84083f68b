"""Runtime `hbm`: the X5's BPU through D-Robotics' `hbm_runtime`, part of RDK OS since 3.5.0."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.runtimes.base import (
    ImageInput,
    InferenceError,
    ModelLoadError,
    RunOptions,
    Runtime,
    RuntimeInfo,
    RuntimeUnavailableError,
)
from efv2_ros.vision.planes import Nv12Planes

_GREY = 128


class HbmRuntime(Runtime):
    """A compiled model on the BPU, one inference at a time."""

    def __init__(self, path: Path, image: ImageInput, options: RunOptions) -> None:
        module = _import()
        network = _Network(module, path, image, options)
        super().__init__(
            RuntimeInfo("hbm", _version(module), "BPU", network.classes),
            image,
            [_Slot(network, image) for _ in range(options.slots)],
        )


def probe() -> str:
    """Name hbm_runtime's version.

    Raises:
        RuntimeUnavailableError: It cannot be imported; the message has the fix.
    """
    return f"hbm_runtime {_version(_import())}"


def load(path: Path, image: ImageInput, options: RunOptions) -> HbmRuntime:
    """Load a compiled model; see `open_runtime`."""
    return HbmRuntime(path, image, options)


class _Network:
    """A loaded model, and the shape in which it takes NV12."""

    def __init__(self, module: Any, path: Path, image: ImageInput, options: RunOptions) -> None:
        # D-Robotics' samples use a model from one thread only, and nothing promises thread safety.
        self._lock = threading.Lock()
        try:
            self._session = module.HB_HBMRuntime(str(path))
            (self._model,) = self._session.model_names
            (self._input,) = self._session.input_names[self._model]
            (self._output,) = self._session.output_names[self._model]
            stated = tuple(self._session.input_shapes[self._model][self._input])
            self._schedule(options)
        except ValueError as error:
            raise ModelLoadError(
                f"{path} must hold one model with one input and one output: {error}"
            ) from error
        except Exception as error:  # a vendor's extension may raise anything
            raise ModelLoadError(f"{path} cannot be loaded: hbm_runtime: {error}") from error
        self._shape, self.classes = self._try_shapes(path, stated, image)

    def run(self, nv12: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._run(nv12.reshape(self._shape))

    def _run(self, nv12: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._lock:
            try:
                results = self._session.run({self._model: {self._input: nv12}})
                values = results[self._model][self._output]
                logits = np.array(values)  # a copy, before the next run may change it
            except Exception as error:
                raise InferenceError(f"hbm_runtime: {error}") from error
        if logits.dtype.kind != "f":
            raise ModelLoadError(f"the model returns {logits.dtype} and not floats: use libdnn")
        return logits.astype(np.float32, copy=False).reshape(-1)

    def _schedule(self, options: RunOptions) -> None:
        if options.bpu_priority or options.bpu_core >= 0:
            self._session.set_scheduling_params(
                priority={self._model: options.bpu_priority},
                bpu_cores={self._model: [max(0, options.bpu_core)]},
            )

    def _try_shapes(
        self, path: Path, stated: tuple[int, ...], image: ImageInput
    ) -> tuple[tuple[int, ...], int]:
        """Find the first input shape that works, and the number of logits.

        `input_shapes` may state the shape of the NV12 array, or 1x3xHxW of the image it encodes.
        """
        grey = np.full(image.nv12_shape, _GREY, np.uint8)
        size = (image.height, image.width)
        if size not in (stated[2:4], stated[1:3]) and math.prod(stated) != grey.size:
            raise ModelLoadError(
                f"{path} takes input of shape {stated} and not one {image.width}x{image.height} "
                "image"
            )
        problems = []
        for shape in _shapes(stated, image):
            try:
                return shape, self._run(grey.reshape(shape)).size
            except InferenceError as error:
                problems.append(f"{shape}: {error}")
        raise ModelLoadError(
            f"{path} takes NV12 in none of the usual shapes: {'; '.join(problems)}"
        )


def _shapes(stated: tuple[int, ...], image: ImageInput) -> Iterator[tuple[int, ...]]:
    """List the shapes that NV12 may be passed in, the most likely first."""
    rows, columns = image.nv12_shape
    usual = [(1, rows, columns, 1), (1, rows, columns), (rows, columns), (rows * columns,)]
    if math.prod(stated) == rows * columns:
        yield stated
    yield from (shape for shape in usual if shape != stated)


class _Slot:
    """An image buffer. All slots share one model."""

    def __init__(self, network: _Network, image: ImageInput) -> None:
        self._network = network
        self._buffer = np.empty(image.nv12_shape, np.uint8)
        self.nv12 = Nv12Planes.of(self._buffer)

    def commit(self) -> None:
        """Do nothing: `run` reads the image when it is called."""

    def infer(self) -> NDArray[np.float32]:
        return self._network.run(self._buffer)


def _import() -> Any:
    try:
        import hbm_runtime
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"hbm_runtime is not installed ({error}): it is part of RDK OS 3.5.0 and later. The "
            "package of that name on PyPI is for another series of boards"
        ) from error
    except Exception as error:  # RuntimeError where it finds no libdnn
        raise RuntimeUnavailableError(
            f"hbm_runtime cannot be imported ({error}): it works on the board it was made for only"
        ) from error
    return hbm_runtime


def _version(module: Any) -> str:
    return str(getattr(module, "__version__", "of unknown version"))
