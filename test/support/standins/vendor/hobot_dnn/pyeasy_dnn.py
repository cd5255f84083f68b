"""A stand-in for the board's extension that misbehaves as the real one was seen to do.

It holds the GIL through `forward`, reads as many bytes as an array has elements from where its
data begins, and infers again on what was there before when the argument is no array. Models share
their tensors with every caller and are never freed; only the first of a file is loaded. Errors say
nothing of their reason and are causes of a SystemError. A task that fails stays open, and there
are 32. A result is as many elements as the first four dimensions multiply to, whatever its rank
and padding.
"""

import ctypes
import sys

import numpy as np

if int(np.__version__.split(".")[0]) >= 2:
    raise ImportError("numpy.core.multiarray failed to import")

from _dnn import Dnn, Failure

_TYPES = {1: "NV12", 2: "NV12_SEPARATE", 4: "RGB", 8: "int8", 11: "int16", 13: "float32",
          14: "int32"}  # fmt: skip


class TensorProperties:
    def __init__(self, properties):
        kind = _TYPES[properties.tensorType]
        self.tensor_type = kind
        self.dtype = "uint8" if kind in ("NV12", "NV12_SEPARATE", "RGB") else kind
        self.layout = {0: "NHWC", 2: "NCHW"}[properties.tensorLayout]
        self.shape = properties.validShape.dimensions
        scales = [properties.scale.scaleData[n] for n in range(properties.scale.scaleLen)]
        self.scale_data = np.array(scales, np.float32)

    @property
    def validShape(self):
        raise AssertionError("a raw pointer that leaks")

    alignedShape = validShape


class Tensor:
    def __init__(self, name, dnn, tensor):
        self.name = name
        self.properties = TensorProperties(tensor.properties)
        self._dnn = dnn

    @property
    def buffer(self):
        assert self.name == "output", "reads past the end of an NV12 tensor"
        return self._dnn.first(tuple(self._dnn.output.properties.validShape.dimensionSize[:4]))


class Model:
    def __init__(self, dnn):
        self.name = dnn.names[0]
        self.estimate_latency = 100
        self._dnn = dnn

    @property
    def inputs(self):
        return [Tensor("data", self._dnn, self._dnn.input)] * self._dnn.counts[0]

    @property
    def outputs(self):
        return [Tensor("output", self._dnn, self._dnn.output)] * self._dnn.counts[1]

    def forward(self, arg, core_id=0, priority=0):
        if isinstance(arg, (list, tuple)) and arg:
            arg = arg[0]
        try:
            if isinstance(arg, np.ndarray):
                if not arg.size:
                    raise RuntimeError("forward execution failed.")
                self._dnn.write(arg.ctypes.data, arg.size)
            self._dnn.run(core_id, priority, leaks=True)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            raise SystemError("forward returned a result with an exception set") from RuntimeError(
                "forward execution failed."
            )
        return self.outputs


def load(model_file):
    if not isinstance(model_file, (str, list)):
        raise SystemError("load returned a result with an exception set") from TypeError(
            "model_file must be a string or a list"
        )
    files = [model_file] if isinstance(model_file, str) else model_file
    try:
        return [Model(Dnn(ctypes.PyDLL, file)) for file in files]  # its calls keep the GIL
    except Failure as error:
        print(error, file=sys.stderr)
        raise SystemError("load returned a result with an exception set") from RuntimeError(
            f"{str(error).split()[0]} failed"
        )
