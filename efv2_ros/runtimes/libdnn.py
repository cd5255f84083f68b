"""The X5's BPU through libdnn.so itself: several tasks in flight, none of them holding the GIL.

Each slot has tensors of its own in cached BPU memory. Images are converted straight into them.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from contextlib import suppress
from ctypes import byref, c_char_p, c_int32, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.planes import Nv12Planes
from efv2_ros.runtimes.base import (
    DeviceLostError,
    ImageInput,
    InferenceError,
    InferenceTimeoutError,
    ModelLoadError,
    RunOptions,
    Runtime,
    RuntimeInfo,
)
from efv2_ros.runtimes.libdnn_abi import (
    TIMEOUT,
    Cache,
    DataType,
    DnnError,
    InferCtrlParam,
    Layout,
    Libdnn,
    QuantiType,
    SysMem,
    Tensor,
    TensorProperties,
)

_DTYPES: dict[int, type[np.generic]] = {
    DataType.S8: np.int8,
    DataType.U8: np.uint8,
    DataType.F16: np.float16,
    DataType.S16: np.int16,
    DataType.U16: np.uint16,
    DataType.F32: np.float32,
    DataType.S32: np.int32,
    DataType.U32: np.uint32,
}

_FLOATS = (DataType.F16, DataType.F32)

_LOST_AFTER = 2.0
"""Timeouts, in times the limit, between the first in a row and the one that gives up."""


class LibdnnRuntime(Runtime):
    """A compiled model on the BPU."""

    def __init__(self, path: Path, image: ImageInput, options: RunOptions) -> None:
        library = Libdnn()
        self._network = _Network(library, path, image, options)
        try:
            slots = [_Slot(self._network) for _ in range(options.slots)]
        except BaseException as error:
            self._network.close()
            if isinstance(error, DnnError):
                raise ModelLoadError(f"{path} cannot be loaded: {error}") from error
            raise
        super().__init__(
            RuntimeInfo("libdnn", library.version, "BPU", self._network.output.classes),
            image,
            slots,
        )

    def close(self) -> None:
        """See `Runtime.close`. What a hung BPU may still write to is left to the process's end."""
        super().close()
        self._network.close()


def probe() -> str:
    """Name and version of what would run a model.

    Raises:
        RuntimeUnavailableError: libdnn cannot be used here.
    """
    return f"libdnn {Libdnn().version}"


def load(path: Path, image: ImageInput, options: RunOptions) -> LibdnnRuntime:
    """Load a compiled model; see `open_runtime`."""
    return LibdnnRuntime(path, image, options)


class _Network:
    """A model in the library, the tensors made for it, and what is known of the BPU's health."""

    def __init__(
        self, library: Libdnn, path: Path, image: ImageInput, options: RunOptions
    ) -> None:
        self.library = library
        self.timeout = options.infer_timeout
        self.control = InferCtrlParam(
            bpuCoreId=0 if options.bpu_core < 0 else 1 << options.bpu_core,
            priority=options.bpu_priority,
        )
        self.health = _Health(options.infer_timeout)
        self._packed = c_void_p()
        self._tensors: list[Tensor] = []
        self._lock = threading.Lock()
        try:
            self.handle = self._open(path)
            self.input = _Input.of(self._properties("Input", path), path, image)
            self.output = _Output.of(self._properties("Output", path), path)
        except DnnError as error:
            self.close()
            raise ModelLoadError(f"{path} cannot be loaded: {error}") from error
        except BaseException:
            self.close()
            raise

    def tensor(self, properties: TensorProperties, sizes: tuple[int, ...]) -> Tensor:
        """A tensor with memory of these sizes, in bytes, for as long as the network lives."""
        tensor = Tensor(properties=properties)
        for index, size in enumerate(sizes):
            try:
                tensor.sysMem[index] = self.library.allocate(size)
            except DnnError:
                self._free(tensor)
                raise
        with self._lock:
            self._tensors.append(tensor)
        return tensor

    def free(self, tensors: tuple[Tensor, ...]) -> None:
        """Free what `tensor` made."""
        with self._lock:
            self._tensors = [each for each in self._tensors if each not in tensors]
        for tensor in tensors:
            self._free(tensor)

    def close(self) -> None:
        """Free everything, unless the BPU may still be at work on it."""
        if self.health.hanging:
            return
        for tensor in self._tensors:
            self._free(tensor)
        self._tensors = []
        if self._packed:
            with suppress(DnnError):  # nobody could do anything about it
                self.library.call("hbDNNRelease", self._packed)
            self._packed = c_void_p()

    def _free(self, tensor: Tensor) -> None:
        for memory in tensor.sysMem:
            if memory.virAddr:
                with suppress(DnnError):
                    self.library.call("hbSysFreeMem", byref(memory))

    def _open(self, path: Path) -> c_void_p:
        call = self.library.call
        files = (c_char_p * 1)(os.fsencode(path))
        call("hbDNNInitializeFromFiles", byref(self._packed), files, 1)
        names, count, handle = ctypes.POINTER(c_char_p)(), c_int32(), c_void_p()
        call("hbDNNGetModelNameList", byref(names), byref(count), self._packed)
        if count.value != 1:
            raise ModelLoadError(f"{path} holds {count.value} models and not one")
        call("hbDNNGetModelHandle", byref(handle), self._packed, names[0])
        return handle

    def _properties(self, which: str, path: Path) -> TensorProperties:
        """Of the model's only input or output."""
        count, properties = c_int32(), TensorProperties()
        self.library.call(f"hbDNNGet{which}Count", byref(count), self.handle)
        if count.value != 1:
            raise ModelLoadError(f"{path} has {count.value} {which.lower()}s and not one")
        self.library.call(f"hbDNNGet{which}TensorProperties", byref(properties), self.handle, 0)
        return properties


class _Health:
    """Tells an inference that hung from a BPU that no longer works; threads may share it."""

    def __init__(self, limit: float) -> None:
        self.lost = False
        self._limit = limit
        self._first_timeout: float | None = None
        self._lock = threading.Lock()

    @property
    def hanging(self) -> bool:
        """Whether the newest word of the BPU is that it did not answer."""
        return self._first_timeout is not None

    def answered(self) -> None:
        """An inference ended, whatever came of it."""
        if self._first_timeout is not None:
            with self._lock:
                self._first_timeout = None

    def silent(self) -> None:
        """An inference did not end in time, or could not be started after one that did not."""
        now = time.monotonic()
        with self._lock:
            if self._first_timeout is None:
                self._first_timeout = now
            elif now - self._first_timeout >= _LOST_AFTER * self._limit:
                self.lost = True


class _Slot:
    """An input and an output tensor and a run of the model from one to the other."""

    def __init__(self, network: _Network) -> None:
        self._network = network
        self._milliseconds = max(1, math.ceil(network.timeout * 1e3))  # 0 would be forever
        self._abandoned: list[tuple[Tensor, Tensor]] = []
        self._set_up()

    def infer(self) -> NDArray[np.float32]:
        network, call, task = self._network, self._network.library.call, c_void_p()
        if network.health.lost:
            raise DeviceLostError("the BPU stopped answering")
        try:
            with network.library.releasing("hbDNNReleaseTask", task):
                for memory in self._written:
                    call("hbSysFlushMem", memory, Cache.CLEAN)
                call(
                    "hbDNNInfer", byref(task), self._output_array, byref(self._input),
                    network.handle, byref(network.control),
                )  # fmt: skip
                call("hbDNNWaitTaskDone", task, self._milliseconds)
                network.health.answered()
                call("hbSysFlushMem", self._read, Cache.INVALIDATE)
        except DnnError as error:
            raise self._failure(error) from error
        if self._abandoned:
            # The BPU takes its tasks in turn, so it is done with what hung before this one.
            for tensors in self._abandoned:
                network.free(tensors)
            self._abandoned.clear()
        return network.output.logits(self._values)

    def _failure(self, error: DnnError) -> InferenceError:
        health, waited = self._network.health, error.call == "hbDNNWaitTaskDone"
        hung = waited and error.code == TIMEOUT
        if hung:
            health.silent()
            self._leave_tensors()
        elif waited:
            health.answered()
        elif health.hanging:
            health.silent()
        if health.lost:
            return DeviceLostError(f"the BPU stopped answering ({error})")
        if hung:
            limit = self._network.timeout
            return InferenceTimeoutError(f"no answer within {limit:g} s ({error})")
        return InferenceError(str(error))

    def _leave_tensors(self) -> None:
        """Leave the tensors to the task that hangs, which may yet write to them."""
        self._abandoned.append((self._input, self._output))
        try:
            self._set_up()
        except DnnError:
            self._network.health.lost = True

    def _set_up(self) -> None:
        network = self._network
        self._input = network.tensor(network.input.properties, network.input.sizes)
        self._output = network.tensor(network.output.properties, (network.output.size,))
        self.nv12 = network.input.planes(self._input)
        self._values = network.output.values(self._output)
        # What every call needs, once: ctypes objects are slow to make.
        self._written = [
            ctypes.pointer(self._input.sysMem[n]) for n in range(len(network.input.sizes))
        ]
        self._read = ctypes.pointer(self._output.sysMem[0])
        self._output_array = byref(ctypes.pointer(self._output))


@dataclass(frozen=True)
class _Input:
    """How an NV12 image lies in the input tensor's memory.

    Attributes:
        properties: Of the tensor.
        height: Rows.
        width: Pixels of a row.
        pitch: Bytes from a row to the next, at least `width`.
        sizes: Bytes of each memory: one, or one for Y and one for UV.
    """

    properties: TensorProperties
    height: int
    width: int
    pitch: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, properties: TensorProperties, path: Path, image: ImageInput) -> _Input:
        """Read the properties of a model's input; ModelLoadError for all but NV12."""
        kind = properties.tensorType
        if kind not in (DataType.NV12, DataType.NV12_SEPARATE):
            raise ModelLoadError(
                f"{path} takes input of type {kind} (hbDNNDataType) and not NV12: compile it with "
                "input_type_rt: nv12"
            )
        shape = properties.validShape.dimensions
        channels_last = properties.tensorLayout == Layout.NHWC
        rows, columns = (1, 2) if channels_last else (2, 3)
        height, width = shape[rows : columns + 1] if len(shape) == 4 else (0, 0)
        if shape[:1] != (1,) or (height, width) != (image.height, image.width):
            wanted = f"{image.width}x{image.height}"
            raise ModelLoadError(f"{path} takes NV12 of shape {shape} and not one {wanted} image")
        # The library pads rows itself where the aligned shape is said to be the valid one. Rows
        # that are written with their padding save it that copy. Only the width counts for NV12.
        pitch = max(width, properties.alignedShape.dimensionSize[columns])
        properties.alignedShape = properties.validShape
        properties.alignedShape.dimensionSize[columns] = pitch
        luma = pitch * height
        if kind == DataType.NV12_SEPARATE:
            sizes: tuple[int, ...] = (luma, luma // 2)
        else:
            sizes = (max(luma * 3 // 2, properties.alignedByteSize),)
        return cls(properties, height, width, pitch, sizes)

    def planes(self, tensor: Tensor) -> Nv12Planes:
        """The tensor's memory as an NV12 image."""
        luma = self.pitch * self.height
        memories = [_bytes(tensor.sysMem[n], size) for n, size in enumerate(self.sizes)]
        y = memories[0][:luma]
        uv = memories[1] if len(memories) > 1 else memories[0][luma : luma * 3 // 2]
        return Nv12Planes.strided(
            y.reshape(-1, self.pitch), uv.reshape(-1, self.pitch), self.width
        )


@dataclass(frozen=True)
class _Output:
    """How logits lie in the output tensor's memory, and what turns them into floats.

    Attributes:
        properties: Of the tensor.
        dtype: Of an element.
        shape: Without padding.
        strides: In bytes.
        size: Bytes of the memory.
        scale: Factor of integers, one or one for each index of an axis; None for floats.
        zero_point: Subtracted before.
    """

    properties: TensorProperties
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    size: int
    scale: NDArray[np.float32] | None
    zero_point: NDArray[np.float32] | None

    @classmethod
    def of(cls, properties: TensorProperties, path: Path) -> _Output:
        """Read the properties of a model's output; ModelLoadError for what holds no logits."""
        kind = properties.tensorType
        if kind not in _DTYPES:
            raise ModelLoadError(f"{path} gives output of type {kind} (hbDNNDataType)")
        dtype = np.dtype(_DTYPES[kind])
        shape = properties.validShape.dimensions
        strides = _strides(properties, dtype.itemsize)
        if not shape or min(shape) < 1 or len(strides) != len(shape):
            raise ModelLoadError(f"{path} gives output of shape {shape}")
        end = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + dtype.itemsize
        if min(strides) < 0 or end > properties.alignedByteSize:
            raise ModelLoadError(
                f"{path} gives output of {properties.alignedByteSize} bytes, too few for shape "
                f"{shape} with strides {strides}"
            )
        scale = zero_point = None
        if kind not in _FLOATS:
            if properties.quantiType != QuantiType.SCALE or properties.scale.scaleLen < 1:
                raise ModelLoadError(f"{path} gives integers without a scale")
            scale = _by_axis(properties, properties.scale.scaleLen, properties.scale.scaleData)
            if properties.scale.zeroPointLen:
                zero_point = _by_axis(
                    properties, properties.scale.zeroPointLen, properties.scale.zeroPointData
                )
            for each in (scale, zero_point):
                if each is not None and any(
                    n not in (1, m) for n, m in zip(each.shape, shape, strict=False)
                ):
                    raise ModelLoadError(f"{path} has {each.size} scales for shape {shape}")
        return cls(
            properties, dtype, shape, strides, properties.alignedByteSize, scale, zero_point
        )

    @property
    def classes(self) -> int:
        """Number of logits."""
        return math.prod(self.shape)

    def values(self, tensor: Tensor) -> NDArray[Any]:
        """The tensor's memory as an array of `shape`."""
        return np.ndarray(
            self.shape, self.dtype, _bytes(tensor.sysMem[0], self.size), 0, self.strides
        )

    def logits(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """A copy as floats, (value - zero point) * scale where they are quantised."""
        floats = values.astype(np.float32)
        if self.zero_point is not None:
            floats -= self.zero_point
        if self.scale is not None:
            floats *= self.scale
        return floats.reshape(-1)


def _strides(properties: TensorProperties, itemsize: int) -> tuple[int, ...]:
    """Bytes from an element to the next along each dimension of the valid shape."""
    count = properties.validShape.numDimensions
    stated = tuple(properties.stride[:count])
    if count and all(stated):
        # The last dimension's step is one element, which tells bytes from elements.
        unit = max(1, itemsize // stated[-1])
        return tuple(step * unit for step in stated)
    aligned = properties.alignedShape.dimensions
    return tuple(itemsize * math.prod(aligned[axis + 1 :]) for axis in range(len(aligned)))


def _by_axis(properties: TensorProperties, count: int, data: Any) -> NDArray[np.float32]:
    """One number for all, or one for each index of the quantised axis, ready to broadcast."""
    numbers = np.array([float(data[n]) for n in range(count)], np.float32)
    if count == 1:
        return numbers.reshape(())
    shape = [1] * properties.validShape.numDimensions
    shape[properties.quantizeAxis] = count
    return numbers.reshape(shape)


def _bytes(memory: SysMem, size: int) -> NDArray[np.uint8]:
    """BPU memory as an array; it must not be used after the memory is freed."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(memory.virAddr))
