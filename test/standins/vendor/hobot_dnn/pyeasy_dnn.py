"""A stand-in for the board's extension that misbehaves as the real one does.

It holds the GIL through `forward`, reads as many bytes as the argument has elements from where its
data begins, and infers again on what was there before when the argument is no array. Models share
their tensors with every caller and are never freed. Errors are causes of a SystemError.
"""

import ctypes

import numpy as np

if int(np.__version__.split(".")[0]) >= 2:
    raise ImportError("numpy.core.multiarray failed to import")

from _dnn import Dnn

_TYPES = {1: "NV12", 2: "NV12_SEPARATE", 4: "RGB", 8: "int8", 11: "int16", 13: "float32",
          14: "int32"}  # fmt: skip


class TensorProperties:
    def __init__(self, properties):
        kind = _TYPES[properties.tensorType]
        self.tensor_type = kind
        self.dtype = "uint8" if kind in ("NV12", "NV12_SEPARATE", "RGB") else kind
        self.layout = {0: "NHWC", 2: "NCHW"}[properties.tensorLayout]
        self.shape = properties.validShape.dimensions
        self.scale_data = [properties.scale.scaleData[n] for n in range(properties.scale.scaleLen)]

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
        return self._dnn.result()


class Model:
    def __init__(self, dnn):
        self.name = dnn.names[0]
        self.estimate_latency = 100
        self._dnn = dnn
        self.inputs = [Tensor("data", dnn, dnn.input)] * dnn.counts[0]
        self.outputs = [Tensor("output", dnn, dnn.output)] * dnn.counts[1]

    def forward(self, arg, core_id=0, priority=0):
        try:
            if isinstance(arg, np.ndarray):
                self._dnn.write(arg.ctypes.data, arg.size)
            self._dnn.run(core_id, priority)
        except RuntimeError as error:
            raise SystemError("forward returned a result with an error set") from error
        return self.outputs


def load(model_file):
    if not isinstance(model_file, (str, list)):
        raise SystemError("load failed") from TypeError("model_file must be str or list")
    try:
        dnn = Dnn(ctypes.PyDLL, model_file)  # whose calls keep the GIL
    except RuntimeError as error:
        raise SystemError("load returned a result with an error set") from error
    return [Model(dnn) for _ in dnn.names]
