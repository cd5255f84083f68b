"""What the two vendor modules' stand-ins have in common: a plain C caller of libdnn."""

import ctypes
import os

import numpy as np

from efv2_ros.runtimes.libdnn.abi import InferCtrlParam, SysMem, Tensor, TensorProperties

PATH = os.environ["LIBDNN_STANDIN_LIBRARY"]


class Failure(RuntimeError):
    pass


class Dnn:
    """A model with one input and one output tensor, driven in turn by whoever calls."""

    def __init__(self, kind, file):
        self._library = kind(PATH)
        packed, names = ctypes.c_void_p(), ctypes.POINTER(ctypes.c_char_p)()
        count = ctypes.c_int32()
        files = (ctypes.c_char_p * 1)(os.fsencode(file))
        self._call("hbDNNInitializeFromFiles", ctypes.byref(packed), files, 1)
        self._call("hbDNNGetModelNameList", ctypes.byref(names), ctypes.byref(count), packed)
        self._handle = ctypes.c_void_p()
        self._call("hbDNNGetModelHandle", ctypes.byref(self._handle), packed, names[0])
        self.names = [names[0].decode()] * count.value
        self.counts = []
        self.input, self.output = Tensor(), Tensor()
        for which, tensor in (("Input", self.input), ("Output", self.output)):
            self._call(f"hbDNNGet{which}Count", ctypes.byref(count), self._handle)
            self.counts.append(count.value)
            properties = TensorProperties()
            self._call(
                f"hbDNNGet{which}TensorProperties", ctypes.byref(properties), self._handle, 0
            )
            if which == "Input":
                properties.alignedShape = properties.validShape
            tensor.properties = properties
            memory = SysMem()
            self._call(
                "hbSysAllocCachedMem", ctypes.byref(memory),
                ctypes.c_uint32(properties.alignedByteSize),
            )  # fmt: skip
            tensor.sysMem[0] = memory

    def _call(self, name, *arguments):
        code = getattr(self._library, name)(*arguments)
        if code:
            raise Failure(f"{name} returned {code}")

    def write(self, address, size):
        """Copy bytes to the start of the input tensor, as many as are given."""
        ctypes.memmove(self.input.sysMem[0].virAddr, address, size)

    def run(self, core, priority, leaks=False):
        """Infer; `leaks` leaves the task open when it fails."""
        task, control = ctypes.c_void_p(), InferCtrlParam(bpuCoreId=core, priority=priority)
        self._call("hbSysFlushMem", ctypes.byref(self.input.sysMem[0]), 2)
        output = ctypes.pointer(self.output)
        self._call(
            "hbDNNInfer", ctypes.byref(task), ctypes.byref(output), ctypes.byref(self.input),
            self._handle, ctypes.byref(control),
        )  # fmt: skip
        try:
            self._call("hbDNNWaitTaskDone", task, 0)
        except Failure:
            if not leaks:
                self._call("hbDNNReleaseTask", task)
            raise
        self._call("hbDNNReleaseTask", task)
        self._call("hbSysFlushMem", ctypes.byref(self.output.sysMem[0]), 1)

    def result(self):
        """A copy of the output tensor as it is now."""
        properties = self.output.properties
        padded = self.first(properties.alignedShape.dimensions)
        return padded[tuple(slice(n) for n in properties.validShape.dimensions)].copy()

    def first(self, shape):
        """The output tensor's memory as if it had this shape."""
        kind = self.output.properties.tensorType
        dtype = {8: np.int8, 11: np.int16, 13: np.float32, 14: np.int32}[kind]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = ctypes.string_at(self.output.sysMem[0].virAddr, size)
        return np.frombuffer(raw, dtype).reshape(shape).copy()
