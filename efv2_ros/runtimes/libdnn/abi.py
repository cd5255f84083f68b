"""C interface of the X5's libdnn.so (1.23 and later): structures, functions, error codes.

Source: D-Robotics' API documentation (rdk_doc, cdev_dnn_api), for 64-bit Linux. The names are the
header's own, so that they can be looked up there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_float, c_int8, c_int32, c_int64, c_uint8, c_void_p
from enum import IntEnum
from typing import Any

from efv2_ros.errors import Efv2Error
from efv2_ros.runtimes.base import RuntimeUnavailableError

LIBRARIES = ("libdnn.so", "/usr/hobot/lib/libdnn.so")
"""Names that are tried: on the linker's path first, then where RDK OS has the library."""

MAX_DIMENSIONS = 8


class SysMem(ctypes.Structure):
    """hbSysMem: memory that both the CPU and the BPU can reach."""

    _fields_ = (
        ("phyAddr", ctypes.c_uint64),
        ("virAddr", c_void_p),
        ("memSize", ctypes.c_uint32),
    )


class TensorShape(ctypes.Structure):
    """hbDNNTensorShape."""

    _fields_ = (("dimensionSize", c_int32 * MAX_DIMENSIONS), ("numDimensions", c_int32))

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The sizes in use."""
        return tuple(self.dimensionSize[: self.numDimensions])


class QuantiShift(ctypes.Structure):
    """hbDNNQuantiShift; not used by models for the X5."""

    _fields_ = (("shiftLen", c_int32), ("shiftData", POINTER(c_uint8)))


class QuantiScale(ctypes.Structure):
    """hbDNNQuantiScale: one scale and zero point, or one for each index of an axis."""

    _fields_ = (
        ("scaleLen", c_int32),
        ("scaleData", POINTER(c_float)),
        ("zeroPointLen", c_int32),
        ("zeroPointData", POINTER(c_int8)),
    )


class TensorProperties(ctypes.Structure):
    """hbDNNTensorProperties."""

    _fields_ = (
        ("validShape", TensorShape),
        ("alignedShape", TensorShape),
        ("tensorLayout", c_int32),
        ("tensorType", c_int32),
        ("shift", QuantiShift),
        ("scale", QuantiScale),
        ("quantiType", c_int32),
        ("quantizeAxis", c_int32),
        ("alignedByteSize", c_int32),
        ("stride", c_int32 * MAX_DIMENSIONS),
    )


class Tensor(ctypes.Structure):
    """hbDNNTensor. NV12_SEPARATE uses two of its memories, every other type one."""

    _fields_ = (("sysMem", SysMem * 4), ("properties", TensorProperties))


class InferCtrlParam(ctypes.Structure):
    """hbDNNInferCtrlParam; all zero is the header's default."""

    _fields_ = (
        ("bpuCoreId", c_int32),
        ("dspCoreId", c_int32),
        ("priority", c_int32),
        ("more", c_int32),
        ("customId", c_int64),
        ("reserved1", c_int32),
        ("reserved2", c_int32),
    )


for _structure, _size in (
    (SysMem, 24), (TensorShape, 36), (TensorProperties, 176), (Tensor, 272), (InferCtrlParam, 32),
):  # fmt: skip
    assert ctypes.sizeof(_structure) == _size, f"{_structure.__name__} is laid out differently"


class DataType(IntEnum):
    """hbDNNDataType, as far as models for the X5 use it."""

    NV12 = 1
    NV12_SEPARATE = 2
    S8 = 8
    U8 = 9
    F16 = 10
    S16 = 11
    U16 = 12
    F32 = 13
    S32 = 14
    U32 = 15


class Layout(IntEnum):
    """hbDNNTensorLayout."""

    NHWC = 0
    NCHW = 2
    NONE = 255


class QuantiType(IntEnum):
    """hbDNNQuantiType."""

    NONE = 0
    SHIFT = 1
    SCALE = 2


class Cache(IntEnum):
    """hbSysMemFlushFlag: INVALIDATE before the CPU reads, CLEAN after the CPU wrote."""

    INVALIDATE = 1
    CLEAN = 2


TIMEOUT = -6000008

MEANINGS = {
    -6000001: "invalid argument",
    -6000002: "invalid model",
    -6000003: "too many models",
    -6000004: "invalid handle of a model file",
    -6000005: "invalid handle of a model",
    -6000006: "the file cannot be opened",
    -6000007: "out of memory",
    TIMEOUT: "the task was not done in time",
    -6000009: "too many open tasks",
    -6000010: "the task's batch is too large",
    -6000011: "invalid task",
    -6000012: "the task failed on the BPU",
    -6000013: "the model is running",
    -6000014: "the model was compiled for another chip or by a newer compiler",
    -6000015: "wrong use of the library",
    -6000016: "another process uses the BPU in a way that rules this one out",
    -6000129: "invalid argument",
    -6000130: "out of memory for the BPU",
    -6000131: "memory could not be registered",
}
"""Meanings of hbDNNStatus and hbSysStatus codes."""

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "hbDNNInitializeFromFiles": (POINTER(c_void_p), POINTER(c_char_p), c_int32),
    "hbDNNGetModelNameList": (POINTER(POINTER(c_char_p)), POINTER(c_int32), c_void_p),
    "hbDNNGetModelHandle": (POINTER(c_void_p), c_void_p, c_char_p),
    "hbDNNGetInputCount": (POINTER(c_int32), c_void_p),
    "hbDNNGetOutputCount": (POINTER(c_int32), c_void_p),
    "hbDNNGetInputTensorProperties": (POINTER(TensorProperties), c_void_p, c_int32),
    "hbDNNGetOutputTensorProperties": (POINTER(TensorProperties), c_void_p, c_int32),
    "hbDNNInfer": (
        POINTER(c_void_p), POINTER(POINTER(Tensor)), POINTER(Tensor), c_void_p,
        POINTER(InferCtrlParam),
    ),
    "hbDNNWaitTaskDone": (c_void_p, c_int32),
    "hbDNNReleaseTask": (c_void_p,),
    "hbDNNRelease": (c_void_p,),
    "hbSysAllocCachedMem": (POINTER(SysMem), ctypes.c_uint32),
    "hbSysFlushMem": (POINTER(SysMem), c_int32),
    "hbSysFreeMem": (POINTER(SysMem),),
}  # fmt: skip


class DnnError(Efv2Error):
    """A call of the library that failed.

    Attributes:
        call: The function's name.
        code: What it returned.
    """

    def __init__(self, call: str, code: int, meaning: str) -> None:
        super().__init__(f"{call} failed with {code}: {meaning}")
        self.call = call
        self.code = code


class Libdnn:
    """The loaded library. Calls release the GIL and raise `DnnError` for every code but 0.

    Raises:
        RuntimeUnavailableError: It is not installed, does not load, or lacks a function.
    """

    def __init__(self) -> None:
        self._library = _load()
        self._functions: dict[str, Any] = {}
        for name, argument_types in _FUNCTIONS.items():
            function = self._optional(name)
            if function is None:
                raise RuntimeUnavailableError(
                    f"{self._library._name} has no function {name}: it is not the X5's libdnn; "
                    "update RDK OS, or take it off LD_LIBRARY_PATH"
                )
            function.argtypes, function.restype = argument_types, c_int32
            self._functions[name] = function
        self._describe = self._optional("hbDNNGetErrorDesc")
        if self._describe is not None:
            self._describe.argtypes, self._describe.restype = (c_int32,), c_char_p

    @property
    def version(self) -> str:
        """The library's version as text."""
        function = self._optional("hbDNNGetVersion")
        if function is None:
            return "of unknown version"
        function.argtypes, function.restype = (), c_char_p
        return bytes(function() or b"").decode("utf-8", "replace")

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of `_FUNCTIONS`.

        Raises:
            DnnError: It did not return 0.
        """
        code = self._functions[name](*arguments)
        if code:
            raise DnnError(name, code, self._meaning(code))

    @contextmanager
    def releasing(self, name: str, handle: c_void_p) -> Iterator[None]:
        """Release `handle`, if it is set, with the function `name` at the end of the block.

        After an exception in the block, an error of the release is ignored.
        """
        try:
            yield
        except BaseException:
            if handle:
                self._functions[name](handle)
            raise
        if handle:
            self.call(name, handle)

    def allocate(self, size: int) -> SysMem:
        """Allocate `size` bytes of cached memory for the BPU."""
        memory = SysMem()
        self.call("hbSysAllocCachedMem", byref(memory), size)
        return memory

    def _meaning(self, code: int) -> str:
        if code in MEANINGS:
            return MEANINGS[code]
        described = self._describe(code) if self._describe else None
        return described.decode("utf-8", "replace") if described else "unknown error"

    def _optional(self, name: str) -> Any:
        try:
            return getattr(self._library, name)
        except AttributeError:
            return None


def _load() -> ctypes.CDLL:
    problems = []
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            problems.append(str(error))
    raise RuntimeUnavailableError(
        f"the BPU's library cannot be loaded ({problems[0]}): it is part of RDK OS on an RDK X5"
    )
