"""A stand-in for the board's hbm_runtime.

What it says of its input's shape may not be what it takes: HBM_STANDIN_STATES and
HBM_STANDIN_TAKES name the shapes. `picture` is 1x3xHxW, `rows` 1x(H*3/2)xWx1, `flat` has one
dimension.
"""

import ctypes
import os

import numpy as np

if os.environ.get("HBM_STANDIN_STATES") == "broken":
    raise RuntimeError("libdnn.so: cannot open shared object file")

from _dnn import Dnn

__version__ = "3.5 (stand-in)"


def _shapes(height, width):
    rows = height * 3 // 2
    return {
        "picture": (1, 3, height, width),
        "rows": (1, rows, width, 1),
        "flat": (rows * width,),
    }


class HB_HBMRuntime:
    def __init__(self, model_file):
        self._dnn = Dnn(ctypes.CDLL, model_file)
        height, width = self._dnn.input.properties.validShape.dimensions[2:]
        shapes = _shapes(height, width)
        self._takes = shapes[os.environ.get("HBM_STANDIN_TAKES", "rows")]
        self.model_names = list(self._dnn.names)
        model = self.model_names[0]
        self.input_names = {model: ["data"] * self._dnn.counts[0]}
        self.output_names = {model: ["output"] * self._dnn.counts[1]}
        states = shapes[os.environ.get("HBM_STANDIN_STATES", "picture")]
        self.input_shapes = {model: {"data": list(states)}}
        self._priority = self._core = 0
        self._busy = False
        self._result = self._dnn.result()

    def set_scheduling_params(self, priority, bpu_cores):
        (self._priority,) = priority.values()
        ((core,),) = bpu_cores.values()
        self._core = 1 << core

    def run(self, inputs):
        assert not self._busy, "called from two threads at once"
        self._busy = True
        try:
            ((model, tensors),) = inputs.items()
            array = tensors["data"]
            if array.dtype != np.uint8 or array.shape != self._takes:
                raise ValueError(f"data: {array.shape} given, {self._takes} wanted")
            contiguous = np.ascontiguousarray(array)
            self._dnn.write(contiguous.ctypes.data, contiguous.size)
            self._dnn.run(self._core, self._priority)
            # The same memory each time: nothing promises that a result is the caller's.
            self._result[...] = self._dnn.result()
            return {model: {"output": self._result}}
        finally:
            self._busy = False
