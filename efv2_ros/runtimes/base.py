"""What a runtime is, and how to open one by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from efv2_ros.errors import Efv2Error


class RuntimeUnavailableError(Efv2Error):
    """This runtime is not installed here, or does not work here."""


class ModelLoadError(Efv2Error):
    """The model file is broken, or is not a classifier that takes one NV12 image."""


class InferenceError(Efv2Error):
    """One inference failed; the next may succeed."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The image a model takes, and what was done to its training images.

    Attributes:
        height: Rows, in pixels; even.
        width: Columns, in pixels; even.
        nv12_range: Range of the NV12 samples the model is given, BT.601 in both cases.
        mean: Subtracted from R, G and B in 0..255; used by models that take floats.
        scale: Multiplied afterwards.
    """

    height: int = 224
    width: int = 224
    nv12_range: Literal["full", "limited"] = "full"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def nv12_shape(self) -> tuple[int, int]:
        """Shape of the NV12 buffer: the Y plane's rows, then half as many of interleaved UV."""
        return self.height * 3 // 2, self.width


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a runtime says of itself.

    Attributes:
        name: The runtime's name in `RUNTIMES`.
        version: Version of the library behind it.
        device: Where inference runs, for people.
        classes: Number of logits.
    """

    name: str
    version: str
    device: str
    classes: int


class Runtime(Protocol):
    """A loaded model.

    `infer` blocks without holding the GIL and may be called from `slots` threads at once; all
    scheduling is the caller's.
    """

    info: RuntimeInfo
    slots: int

    def infer(self, nv12: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model once.

        Args:
            nv12: uint8, C-contiguous, of `ImageInput.nv12_shape`.

        Returns:
            The logits, float32, shape (classes,), owned by the caller.

        Raises:
            ValueError: `nv12` is not such an array.
            InferenceError: The runtime failed, or is closed.
        """

    def close(self) -> None:
        """Free the model. No inference may be running; a second call does nothing."""


@dataclass(frozen=True, slots=True)
class RuntimeKind:
    """An entry of `RUNTIMES`: where a runtime lives and which model files it runs."""

    module: str
    model_format: Literal["onnx", "bin"]

    def probe(self) -> str:
        """What would run a model here; raises `RuntimeUnavailableError` with the reason if not."""
        version: str = import_module(self.module).probe()
        return version

    def open(self, path: Path, image: ImageInput, *, slots: int, threads: int) -> Runtime:
        """Import the runtime's module and load a model with it; see `open_runtime`."""
        load: Callable[..., Runtime] = import_module(self.module).load
        return load(path, image, slots=slots, threads=threads)


RUNTIMES = MappingProxyType({"onnx": RuntimeKind("efv2_ros.runtimes.onnx", "onnx")})
"""Every runtime by name, in the order in which `auto` prefers them."""


def select_runtime(name: str = "auto") -> tuple[str, RuntimeKind]:
    """Name and kind of the runtime to use; `auto` takes the first of `RUNTIMES`.

    Raises:
        RuntimeUnavailableError: There is no runtime of that name.
    """
    if name == "auto":
        return next(iter(RUNTIMES.items()))
    try:
        return name, RUNTIMES[name]
    except KeyError:
        known = ", ".join(("auto", *RUNTIMES))
        raise RuntimeUnavailableError(f"no runtime is named '{name}'; there are {known}") from None


def open_runtime(
    path: Path, image: ImageInput, *, name: str = "auto", slots: int = 1, threads: int = 0
) -> Runtime:
    """Load a model file.

    Args:
        path: The model file.
        image: The image the model takes.
        name: A name from `RUNTIMES`, or `auto`.
        slots: How many threads will call `infer` at once.
        threads: CPU threads a single inference may use, where that is a choice; 0 leaves it to
            the runtime.

    Raises:
        RuntimeUnavailableError: The runtime is not here.
        ModelLoadError: The file is not a model this runtime and `image` can be used with.
    """
    _, kind = select_runtime(name)
    return kind.open(path, image, slots=slots, threads=threads)


def check_nv12(nv12: NDArray[np.uint8], shape: tuple[int, int]) -> None:
    """Refuse what a C library would read out of bounds or misread.

    Raises:
        ValueError: `nv12` is not a C-contiguous uint8 array of this shape.
    """
    if not isinstance(nv12, np.ndarray) or nv12.dtype != np.uint8 or nv12.shape != shape:
        found = (
            f"{nv12.dtype} {nv12.shape}" if isinstance(nv12, np.ndarray) else type(nv12).__name__
        )
        raise ValueError(f"an NV12 input is a uint8 array of shape {shape}, not {found}")
    if not nv12.flags.c_contiguous:
        raise ValueError("an NV12 input must be C-contiguous")
