"""Layout of images and logits in libdnn's tensors: padding, planes, quantisation."""

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
    """Layout of an NV12 image in the input tensor's memory.

    Attributes:
        properties: Properties of the tensor.
        height: Height in pixels.
        width: Width in pixels.
        pitch: Bytes from one row to the next, at least `width`.
        sizes: Size in bytes of each memory: one for all, or one for Y and one for UV.
    """

    properties: TensorProperties
    height: int
    width: int
    pitch: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, properties: TensorProperties, path: Path, image: ImageInput) -> Nv12Input:
        """Read the layout from the properties of a model's input.

        Raises:
            ModelLoadError: It does not take one NV12 image of this size.
        """
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
        # If the aligned shape equals the valid one, the library copies the image to pad its rows.
        # Writing rows with their padding saves that copy. For NV12, only the width is aligned.
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
        """View the tensor's memory as an NV12 image."""
        luma = self.pitch * self.height
        memories = [_bytes(tensor.sysMem[n], size) for n, size in enumerate(self.sizes)]
        y = memories[0][:luma]
        uv = memories[1] if len(memories) > 1 else memories[0][luma : luma * 3 // 2]
        return Nv12Planes.strided(
            y.reshape(-1, self.pitch), uv.reshape(-1, self.pitch), self.width
        )


@dataclass(frozen=True)
class LogitsOutput:
    """Layout of logits in the output tensor's memory, and their quantisation.

    Attributes:
        properties: Properties of the tensor.
        dtype: Type of an element.
        shape: Shape without padding.
        strides: Strides in bytes.
        size: Size of the memory in bytes.
        scale: Factor for integers: one for all, or one for each index of an axis; None for floats.
        zero_point: Subtracted from integers before scaling, in the same form; None for zero.
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
        """Read the layout from the properties of a model's output.

        Raises:
            ModelLoadError: It does not hold logits.
        """
        kind = properties.tensorType
        if kind not in _DTYPES:
            raise ModelLoadError(f"{path} returns output of type {kind} (hbDNNDataType)")
        dtype = np.dtype(_DTYPES[kind])
        shape = properties.validShape.dimensions
        strides = _strides(properties, dtype.itemsize)
        if not shape or min(shape) < 1 or len(strides) != len(shape):
            raise ModelLoadError(f"{path} returns output of shape {shape}")
        end = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + dtype.itemsize
        if min(strides) < 0 or end > properties.alignedByteSize:
            raise ModelLoadError(
                f"{path} returns output of {properties.alignedByteSize} bytes, too few for shape "
                f"{shape} with strides {strides}"
            )
        scale = zero_point = None
        if kind not in _FLOATS:
            if properties.quantiType != QuantiType.SCALE or properties.scale.scaleLen < 1:
                raise ModelLoadError(f"{path} returns integers without a scale")
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
        """View the tensor's memory as an array of `shape`."""
        return np.ndarray(
            self.shape, self.dtype, _bytes(tensor.sysMem[0], self.size), 0, self.strides
        )

    def logits(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Copy values as floats; quantised ones become (value - zero point) * scale."""
        floats = values.astype(np.float32)
        if self.zero_point is not None:
            floats -= self.zero_point
        if self.scale is not None:
            floats *= self.scale
        return floats.reshape(-1)


def _strides(properties: TensorProperties, itemsize: int) -> tuple[int, ...]:
    """Compute the bytes from one element to the next along each dimension."""
    count = properties.validShape.numDimensions
    stated = tuple(properties.stride[:count])
    if count and all(stated):
        # The last dimension's stride is one element: this tells bytes from elements.
        unit = max(1, itemsize // stated[-1])
        return tuple(step * unit for step in stated)
    aligned = properties.alignedShape.dimensions
    return tuple(itemsize * math.prod(aligned[axis + 1 :]) for axis in range(len(aligned)))


def _by_axis(properties: TensorProperties, count: int, data: Any) -> NDArray[np.float32]:
    """Read one number for all, or one for each index of the quantised axis, to broadcast."""
    numbers = np.array([float(data[n]) for n in range(count)], np.float32)
    if count == 1:
        return numbers.reshape(())
    shape = [1] * properties.validShape.numDimensions
    if not 0 <= properties.quantizeAxis < len(shape):
        return numbers  # refused by the caller: this fits no output with a batch dimension
    shape[properties.quantizeAxis] = count
    return numbers.reshape(shape)


def _bytes(memory: SysMem, size: int) -> NDArray[np.uint8]:
    """View BPU memory as an array, which must not be used after the memory is freed."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(memory.virAddr))
