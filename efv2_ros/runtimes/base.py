"""What a runtime is, and how to open one by name."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from efv2_ros.errors import Efv2Error
from efv2_ros.runtimes import board
from efv2_ros.vision.planes import Nv12Planes

ModelFormat = Literal["bin", "onnx"]


class RuntimeUnavailableError(Efv2Error):
    """This runtime is not installed here, or does not work here."""


class ModelLoadError(Efv2Error):
    """The model file is broken, or is not a classifier that takes one NV12 image."""


class InferenceError(Efv2Error):
    """One inference failed; the next may succeed."""


class InferenceTimeoutError(InferenceError):
    """An inference did not end in time and was given up; the next may succeed."""


class DeviceLostError(InferenceError):
    """The accelerator no longer answers; the model must be loaded anew."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The image a model takes, and what was done to its training images.

    Attributes:
        height: Rows, in pixels; even.
        width: Columns, in pixels; even.
        nv12_range: Range of the NV12 samples the model is given, BT.601 in both cases.
        mean: Subtracted from R, G and B in 0..255; used by models that take floats.
        scale: Multiplied afterwards.

    Raises:
        ValueError: A side is not even and positive, `mean` or `scale` is not three finite numbers,
            or `scale` is zero.
    """

    height: int = 224
    width: int = 224
    nv12_range: Literal["full", "limited"] = "full"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.height < 2 or self.width < 2 or self.height % 2 or self.width % 2:
            raise ValueError(f"an NV12 image has even sides, not {self.width}x{self.height}")
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} must be three finite numbers, not {values}")
        if not all(self.scale):
            raise ValueError(f"scale must not be zero, as in {self.scale}")

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


class Slot(Protocol):
    """One inference's place in a runtime: the memory it reads, and a run of the model on it."""

    nv12: Nv12Planes

    def commit(self) -> None:
        """Make what `nv12` now holds ready for `infer`, while others may use the accelerator.

        Raises:
            InferenceError: The runtime failed.
        """

    def infer(self) -> NDArray[np.float32]:
        """Run the model on what was committed; blocks, and only hobot_dnn keeps the GIL meanwhile.

        Returns:
            The logits, float32, shape (classes,), owned by the caller.

        Raises:
            InferenceError: The runtime failed.
        """


class _Lease:
    """Gives a slot back at the end; made once, since this lies in every frame's way."""

    __slots__ = ("_free", "_slot")

    def __init__(self, slot: Slot, free: queue.SimpleQueue[_Lease]) -> None:
        self._slot, self._free = slot, free

    def __enter__(self) -> Slot:
        return self._slot

    def __exit__(self, *_: object) -> None:
        self._free.put(self)


class Runtime:
    """A loaded model with a fixed number of slots; all scheduling is the caller's.

    Args:
        info: What the runtime says of itself.
        image: The image the model takes.
        slots: As many as inferences may run at once.
    """

    def __init__(self, info: RuntimeInfo, image: ImageInput, slots: Sequence[Slot]) -> None:
        self.info = info
        self.slots = len(slots)
        self._shape = image.nv12_shape
        self._closed = False
        self._free: queue.SimpleQueue[_Lease] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(_Lease(slot, self._free))

    def slot(self) -> AbstractContextManager[Slot]:
        """A slot for the caller alone, to write an image into and to run; waits for a free one.

        Raises:
            InferenceError: The runtime is closed.
        """
        if self._closed:
            raise InferenceError("the model is closed")
        return self._free.get()

    def infer(self, nv12: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model once on an image that lies elsewhere; any thread may call it.

        Args:
            nv12: uint8, C-contiguous, of `ImageInput.nv12_shape`.

        Returns:
            The logits, float32, shape (classes,), owned by the caller.

        Raises:
            ValueError: `nv12` is not such an array.
            InferenceError: The runtime failed, or is closed.
        """
        check_nv12(nv12, self._shape)
        with self.slot() as slot:
            for target, source in zip(slot.nv12, Nv12Planes.of(nv12), strict=True):
                np.copyto(target, source)
            slot.commit()
            return slot.infer()

    def close(self) -> None:
        """Free the model. No slot may be in use; a second call does nothing."""
        self._closed = True
        while not self._free.empty():
            self._free.get()  # a slot keeps its memory as long as it is in here


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a model is run. What a runtime has no choice in is ignored.

    Attributes:
        slots: Inferences at once.
        threads: CPU threads of one inference; 0 leaves it to the runtime.
        bpu_core: BPU core to run on; -1 is any.
        bpu_priority: Priority among the BPU's tasks, 0 to 255; 255 interrupts running ones.
        infer_timeout: Seconds after which an inference is given up.
    """

    slots: int = 1
    threads: int = 0
    bpu_core: int = -1
    bpu_priority: int = 0
    infer_timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class RuntimeKind:
    """An entry of `RUNTIMES`: where a runtime lives and which model files it runs."""

    module: str
    model_format: ModelFormat

    def probe(self) -> str:
        """What would run a model here; raises `RuntimeUnavailableError` with the reason if not."""
        version: str = import_module(self.module).probe()
        return version

    def open(self, path: Path, image: ImageInput, options: RunOptions) -> Runtime:
        """Import the runtime's module and load a model with it; see `open_runtime`."""
        load: Callable[..., Runtime] = import_module(self.module).load
        return load(path, image, options)


RUNTIMES = MappingProxyType(
    {
        "libdnn": RuntimeKind("efv2_ros.runtimes.libdnn.runtime", "bin"),
        "hbm": RuntimeKind("efv2_ros.runtimes.hbm", "bin"),
        "hobot_dnn": RuntimeKind("efv2_ros.runtimes.hobot_dnn", "bin"),
        "onnx": RuntimeKind("efv2_ros.runtimes.onnx", "onnx"),
    }
)
"""Every runtime by name, in the order in which `auto` prefers them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A runtime as `auto` sees it.

    Attributes:
        name: Its name in `RUNTIMES`.
        kind: Its entry there.
        version: What would run a model; empty where it would not be taken.
        problem: Why `auto` does not take it, with the cure; empty where it may.
    """

    name: str
    kind: RuntimeKind
    version: str = ""
    problem: str = ""


def candidates(model_format: ModelFormat | None = None) -> Iterator[Candidate]:
    """Every runtime in the order of `auto`, each tried when it is its turn.

    Args:
        model_format: What it must run. None goes by the machine: where there is a BPU, a robot
            must not become slow without a word because something is missing.
    """
    for name, kind in RUNTIMES.items():
        if model_format not in (None, kind.model_format):
            problem = f"it runs .{kind.model_format} files and not .{model_format}"
        elif model_format is None and kind.model_format == "onnx" and board.has_bpu():
            problem = "it runs on the CPU, and this machine has a BPU: choose it with runtime onnx"
        else:
            try:
                yield Candidate(name, kind, version=kind.probe())
                continue
            except RuntimeUnavailableError as error:
                problem = str(error)
        yield Candidate(name, kind, problem=problem)


def select_runtime(
    name: str = "auto", model_format: ModelFormat | None = None
) -> tuple[str, RuntimeKind]:
    """Name and kind of the runtime to use; `auto` takes the first that works here.

    Args:
        name: A name from `RUNTIMES`, or `auto`.
        model_format: For `auto`, what the runtime must be able to run; see `candidates`.

    Raises:
        RuntimeUnavailableError: There is no runtime of that name, or none that works.
    """
    if name in RUNTIMES:
        return name, RUNTIMES[name]
    if name != "auto":
        known = ", ".join(("auto", *RUNTIMES))
        raise RuntimeUnavailableError(f"no runtime is named '{name}'; there are {known}")
    problems = []
    for each in candidates(model_format):
        if not each.problem:
            return each.name, each.kind
        problems.append(f"{each.name}: {each.problem}")
    raise RuntimeUnavailableError(f"no runtime works here. {'. '.join(problems)}")


def open_runtime(
    path: Path, image: ImageInput, name: str, options: RunOptions | None = None
) -> Runtime:
    """Load a model file.

    Args:
        path: The model file.
        image: The image the model takes.
        name: A name from `RUNTIMES`.
        options: How to run it.

    Raises:
        RuntimeUnavailableError: The runtime is not here.
        ModelLoadError: The file is not a model this runtime and `image` can be used with.
    """
    _, kind = select_runtime(name)
    return kind.open(path, image, options or RunOptions())


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
