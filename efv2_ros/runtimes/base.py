"""The interface of all runtimes, and the registry that opens one by name."""

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
    """A runtime that is not installed on this machine, or does not work on it."""


class ModelLoadError(Efv2Error):
    """A model file that is damaged, or is not a classifier of one NV12 image."""


class InferenceError(Efv2Error):
    """An inference that failed; the next one may succeed."""


class InferenceTimeoutError(InferenceError):
    """An inference that did not end in time; the next one may succeed."""


class DeviceLostError(InferenceError):
    """An accelerator that no longer answers; the model must be loaded again."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Size and value range of a model's input image.

    Attributes:
        height: Height in pixels; even.
        width: Width in pixels; even.
        nv12_range: Value range of the NV12 image, BT.601: `full` is 0..255, `limited` is 16..235
            for luma and 16..240 for chroma.
        mean: Mean of R, G and B in 0..255. Float models get `(rgb - mean) * scale`; a compiled
            model has this built in.
        scale: Factors for R, G and B after the mean is subtracted; not zero.

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
        """Shape of the NV12 buffer: `height` rows of Y, then half as many of interleaved UV."""
        return self.height * 3 // 2, self.width


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """Description of a runtime with a loaded model.

    Attributes:
        name: The runtime's name in `RUNTIMES`.
        version: Version of the library that it uses.
        device: Name of the processor that runs inference, for people.
        classes: Number of logits.
    """

    name: str
    version: str
    device: str
    classes: int


class Slot(Protocol):
    """An input buffer of a runtime, and inference on it. Used by one caller at a time."""

    nv12: Nv12Planes

    def commit(self) -> None:
        """Prepare the present content of `nv12` for `infer`; other slots may run meanwhile.

        Raises:
            InferenceError: The runtime failed.
        """

    def infer(self) -> NDArray[np.float32]:
        """Run the model on the committed image and wait for it. Only hobot_dnn holds the GIL.

        Returns:
            The logits, float32 of shape (classes,); the caller may keep them.

        Raises:
            InferenceError: The runtime failed.
        """


class _Lease:
    """A context manager that returns a slot at its end. Made once per slot, to be fast."""

    __slots__ = ("_free", "_slot")

    def __init__(self, slot: Slot, free: queue.SimpleQueue[_Lease]) -> None:
        self._slot, self._free = slot, free

    def __enter__(self) -> Slot:
        return self._slot

    def __exit__(self, *_: object) -> None:
        self._free.put(self)


class Runtime:
    """A loaded model with a fixed number of slots. The caller does all scheduling.

    Args:
        info: Its description.
        image: Size and value range of the model's input.
        slots: One slot for each image that is prepared or in inference at the same time.
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
        """Wait for a free slot and reserve it: `with runtime.slot() as slot`.

        Raises:
            InferenceError: The runtime is closed.
        """
        if self._closed:
            raise InferenceError("the model is closed")
        return self._free.get()

    def infer(self, nv12: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Copy an image into a free slot and run the model on it. Any thread may call this.

        Args:
            nv12: C-contiguous uint8 array of shape `ImageInput.nv12_shape`.

        Returns:
            The logits, float32 of shape (classes,); the caller may keep them.

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
            self._free.get()  # the last reference to the slot and its memory


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of inference. A runtime ignores those that it does not have.

    Attributes:
        slots: Number of slots: inferences that may run at once, and images prepared for them.
        threads: CPU threads per inference; 0 lets the runtime decide.
        bpu_core: BPU core to run on; -1 is any.
        bpu_priority: Priority among the BPU's tasks, 0 to 255; 255 interrupts running tasks.
        infer_timeout: Seconds after which an inference is given up.
    """

    slots: int = 1
    threads: int = 0
    bpu_core: int = -1
    bpu_priority: int = 0
    infer_timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class RuntimeKind:
    """An entry of `RUNTIMES`.

    Attributes:
        module: Name of the runtime's module.
        model_format: Format of its model files.
        not_auto: Why `auto` never takes it; empty if it may.
    """

    module: str
    model_format: ModelFormat
    not_auto: str = ""

    def probe(self) -> str:
        """Name the library that would run a model here.

        Raises:
            RuntimeUnavailableError: The runtime does not work here; the message has the reason.
        """
        version: str = import_module(self.module).probe()
        return version

    def open(self, path: Path, image: ImageInput, options: RunOptions) -> Runtime:
        """Import the runtime's module and load a model; see `open_runtime`."""
        load: Callable[..., Runtime] = import_module(self.module).load
        return load(path, image, options)


RUNTIMES = MappingProxyType(
    {
        "libdnn": RuntimeKind("efv2_ros.runtimes.libdnn.runtime", "bin"),
        "hbm": RuntimeKind("efv2_ros.runtimes.hbm", "bin"),
        "hobot_dnn": RuntimeKind("efv2_ros.runtimes.hobot_dnn", "bin"),
        "onnx": RuntimeKind("efv2_ros.runtimes.onnx", "onnx"),
        "simulator": RuntimeKind("efv2_ros.runtimes.simulator", "bin", "it simulates a BPU"),
    }
)
"""All runtimes by name, in the order in which `auto` prefers them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A runtime that `auto` considers.

    Attributes:
        name: Its name in `RUNTIMES`.
        kind: Its entry in `RUNTIMES`.
        version: The library that would run a model; empty if `auto` does not take this runtime.
        problem: Why `auto` does not take it, and the fix; empty if it may.
    """

    name: str
    kind: RuntimeKind
    version: str = ""
    problem: str = ""


def candidates(model_format: ModelFormat | None = None) -> Iterator[Candidate]:
    """Try all runtimes in the order of `auto`; each is tried when the iterator reaches it.

    Args:
        model_format: The format that the runtime must run. None means the format for this
            machine: on one with a BPU, a missing library must be an error, and not make a robot
            slow by a silent change to the CPU.
    """
    for name, kind in RUNTIMES.items():
        if model_format not in (None, kind.model_format):
            problem = f"it runs .{kind.model_format} files and not .{model_format}"
        elif kind.not_auto:
            problem = f"{kind.not_auto}: choose it with runtime {name}"
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
    """Choose the runtime: the named one, or for `auto` the first that works here.

    Args:
        name: A name from `RUNTIMES`, or `auto`.
        model_format: For `auto`, the format that the runtime must run; see `candidates`.

    Returns:
        The runtime's name and its entry in `RUNTIMES`.

    Raises:
        RuntimeUnavailableError: There is no runtime of that name, or none works here.
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
        image: Size and value range of the model's input.
        name: A name from `RUNTIMES`.
        options: Options of inference.

    Raises:
        RuntimeUnavailableError: The runtime is not installed or does not work here.
        ModelLoadError: The runtime cannot run the file, or the model takes another image.
    """
    _, kind = select_runtime(name)
    return kind.open(path, image, options or RunOptions())


def check_nv12(nv12: NDArray[np.uint8], shape: tuple[int, int]) -> None:
    """Refuse an array that a C library would misread or read out of bounds.

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
