"""How images and logits lie in the tensors of libdnn: padding, planes, quantisation."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.runtimes.base import ImageInput, ModelLoadError
from efv2_ros.runtimes.libdnn.abi import (
    DataType,
    Layout,
    QuantiType,
    SysMem,
    Tensor,
    TensorProperties,
)
from efv2_ros.vision.planes import Nv12Planes

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


@dataclass(frozen=True)
class Nv12Input:
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
    def of(cls, properties: TensorProperties, path: Path, image: ImageInput) -> Nv12Input:
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
class LogitsOutput:
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
    def of(cls, properties: TensorProperties, path: Path) -> LogitsOutput:
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
    if not 0 <= properties.quantizeAxis < len(shape):
        return numbers  # which fits no output that has a batch dimension, and so is refused
    shape[properties.quantizeAxis] = count
    return numbers.reshape(shape)


def _bytes(memory: SysMem, size: int) -> NDArray[np.uint8]:
    """BPU memory as an array; it must not be used after the memory is freed."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(memory.virAddr))
