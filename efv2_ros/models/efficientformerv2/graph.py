"""Write the ONNX nodes of EfficientFormerV2 as torch's exporter would, at opset 11."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from efv2_ros.models.modelfile import ModelError

Size = Literal["s0", "s1", "s2", "l"]
SIZES: tuple[Size, ...] = get_args(Size)

IMAGE_SIDE = 224
CLASSES = 1000
"""Classes of ImageNet-1k, which timm's weights know."""

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]

_HEADS = 8
_VALUE_RATIO = 4  # channels of a value per channel of a key
_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


class BuilderUnavailableError(ModelError):
    """A package that building or converting a network needs is not installed."""


@dataclass(frozen=True)
class Architecture:
    """The hyperparameters in which the sizes differ.

    Attributes:
        widths: Number of channels of each stage.
        expansions: For each block of each stage, the factor by which its MLP widens.
        attention_blocks: Number of blocks with attention, at the end of stages 2 and 3 each.
    """

    widths: tuple[int, int, int, int]
    expansions: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    attention_blocks: int


# timm's EfficientFormer_width, _depth, _expansion_ratios and num_vit.
ARCHITECTURES: Mapping[Size, Architecture] = {
    "s0": Architecture(
        (32, 48, 96, 176),
        ((4,) * 2, (4,) * 2, (4, 3, 3, 3, 4, 4), (4, 3, 3, 4)),
        attention_blocks=2,
    ),
    "s1": Architecture(
        (32, 48, 120, 224),
        ((4,) * 3, (4,) * 3, (4, 4, 3, 3, 3, 3, 4, 4, 4), (4, 4, 3, 3, 4, 4)),
        attention_blocks=2,
    ),
    "s2": Architecture(
        (32, 64, 144, 288),
        ((4,) * 4, (4,) * 4, (4, 4, *(3,) * 6, 4, 4, 4, 4), (4, 4, 3, 3, 3, 3, 4, 4)),
        attention_blocks=4,
    ),
    "l": Architecture(
        (40, 80, 192, 384),
        ((4,) * 5, (4,) * 5, (*(4,) * 4, *(3,) * 7, *(4,) * 4), (4, 4, 4, 3, 3, 3, 3, 4, 4, 4)),
        attention_blocks=6,
    ),
}


@dataclass(frozen=True)
class _Features:
    """A value in the graph: a feature map of 1 x channels x side x side."""

    name: str
    channels: int
    side: int


class Network:
    """A graph under construction: the network's nodes, module by module as timm defines them.

    A module is named as in timm, `stages.2.blocks.4.token_mixer`: its tensors have that prefix,
    and its nodes are named `/stages/stages.2/blocks/blocks.4/token_mixer/Softmax` and so on.
    """

    def __init__(self, tensor: Callable[[str, Shape], Array]) -> None:
        """Start an empty graph.

        Args:
            tensor: Gives a weight by name and shape.

        Raises:
            BuilderUnavailableError: The onnx package is not installed.
        """
        try:
            from onnx import helper, numpy_helper
        except ImportError as error:
            raise BuilderUnavailableError(
                f"a network cannot be built without the onnx package: pip install onnx ({error})"
            ) from error
        self._make_node = helper.make_node
        self._from_array = numpy_helper.from_array
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._tensor = tensor
        self._names: Counter[str] = Counter()

    def classifier(self, architecture: Architecture, classes: int) -> None:
        """Add the whole network, from `data` to `output`, one logit for each class."""
        x = _Features("data", 3, IMAGE_SIDE)
        first, last = architecture.widths[0], architecture.widths[-1]
        x = self._conv_norm_act("stem.conv1", x, first // 2, kernel=3, stride=2)
        x = self._conv_norm_act("stem.conv2", x, first, kernel=3, stride=2)
        for index in range(4):
            x = self._stage(index, x, architecture)

        normalized = self._node(
            "BatchNormalization",
            "norm",
            [x.name, *(self._weight(f"norm.{kind}", (last,)) for kind in _BATCH_NORM_TENSORS)],
            epsilon=_BATCH_NORM_EPSILON,
        )
        pooled = self._node("ReduceMean", "", [normalized], axes=[2, 3], keepdims=0)
        # One head was trained on the labels, one on a teacher; inference uses their mean.
        heads = [self._linear(head, pooled, (classes, last)) for head in ("head", "head_dist")]
        both = self._node("Add", "", heads)
        self._node("Div", "", [both, self._constant("", np.float32(2))], output="output")

    def _stage(self, index: int, x: _Features, architecture: Architecture) -> _Features:
        module = f"stages.{index}"
        width, expansions = architecture.widths[index], architecture.expansions[index]
        if index > 0:
            x = self._downsample(f"{module}.downsample", x, width, attention=index == 3)
        for number, expansion in enumerate(expansions):
            block = f"{module}.blocks.{number}"
            if index >= 2 and number >= len(expansions) - architecture.attention_blocks:
                mixed = self._attention(f"{block}.token_mixer", x, stride=2 if index == 2 else 1)
                x = self._scaled_residual(block, "ls1", x, mixed)
            hidden = self._mlp(f"{block}.mlp", x, expansion)
            x = self._scaled_residual(block, "ls2", x, hidden)
        return x

    def _downsample(
        self, module: str, x: _Features, channels: int, *, attention: bool
    ) -> _Features:
        """Halve the side with a strided convolution; the last stage adds attention to it."""
        half = self._conv_norm(f"{module}.conv", x, channels, kernel=3, stride=2)
        if not attention:
            return half
        attended = self._attention_downsample(f"{module}.attn", x, channels)
        return self._add(module, attended, half)

    def _mlp(self, module: str, x: _Features, expansion: int) -> _Features:
        """Add an MLP: a convolution that widens, a depthwise one, and one that narrows."""
        wide = x.channels * expansion
        y = self._conv_norm_act(f"{module}.fc1", x, wide)
        y = self._conv_norm_act(f"{module}.mid", y, wide, kernel=3, groups=wide)
        return self._conv_norm(f"{module}.fc2", y, x.channels)

    def _attention(self, module: str, x: _Features, *, stride: int) -> _Features:
        """Add Attention2d. With stride 2 it works on half the side and upsamples."""
        key_channels = 32
        y = x
        if stride > 1:
            y = self._conv_norm(
                f"{module}.stride_conv", x, x.channels, kernel=3, stride=stride, groups=x.channels
            )
        query = self._conv_norm(f"{module}.q", y, _HEADS * key_channels)
        y = self._attend(module, query, y, talking_heads=True)
        if stride > 1:
            y = self._upsample(f"{module}.upsample", y, stride)
        y = self._gelu(f"{module}.act", y)
        return self._conv_norm(f"{module}.proj", y, x.channels)

    def _attention_downsample(self, module: str, x: _Features, channels: int) -> _Features:
        """Add Attention2dDownsample: the queries have half the side of keys and values."""
        key_channels = 16
        local = self._conv(
            f"{module}.q.local",
            x,
            *self._conv_weights(f"{module}.q.local", x, x.channels, kernel=3, groups=x.channels),
            stride=2,
        )
        pool = self._node(
            "AveragePool",
            f"{module}.q.pool",
            [x.name],
            ceil_mode=0,
            count_include_pad=1,
            kernel_shape=[1, 1],
            pads=[0, 0, 0, 0],
            strides=[2, 2],
        )
        query = self._add(f"{module}.q", local, _Features(pool, x.channels, local.side))
        query = self._conv_norm(f"{module}.q.proj", query, _HEADS * key_channels)
        y = self._attend(module, query, x, talking_heads=False)
        y = self._gelu(f"{module}.act", y)
        return self._conv_norm(f"{module}.proj", y, channels)

    def _attend(
        self, module: str, query: _Features, x: _Features, *, talking_heads: bool
    ) -> _Features:
        """Add multi-head attention from `query` to `x`, plus a convolution of the values."""
        step = x.side // query.side
        value_channels = _VALUE_RATIO * query.channels
        queries = self._transpose(module, self._split_heads(module, query))
        key = self._conv_norm(f"{module}.k", x, query.channels)
        keys = self._split_heads(module, key)
        value = self._conv_norm(f"{module}.v", x, value_channels)
        nearby = self._conv_norm(
            f"{module}.v_local",
            value,
            value_channels,
            kernel=3,
            stride=step,
            groups=value_channels,
        )
        values = self._transpose(module, self._split_heads(module, value))

        scale = np.float32((query.channels // _HEADS) ** -0.5)
        scores = self._node("MatMul", module, [queries, keys])
        scores = self._node("Mul", module, [scores, self._constant(module, scale)])
        scores = self._node("Add", module, [scores, self._attention_bias(module, x.side, step)])
        if talking_heads:
            scores = self._mix_heads(f"{module}.talking_head1", scores)
        weights = self._node("Softmax", module, [scores], axis=3)
        if talking_heads:
            weights = self._mix_heads(f"{module}.talking_head2", weights)

        mixed = self._transpose(module, self._node("MatMul", module, [weights, values]))
        shape = [1, value_channels, query.side, query.side]
        merged = self._reshape(module, mixed, shape)
        return self._add(module, _Features(merged, value_channels, query.side), nearby)

    def _split_heads(self, module: str, x: _Features) -> str:
        return self._reshape(module, x.name, [1, _HEADS, -1, x.side**2])

    def _mix_heads(self, module: str, scores: str) -> str:
        """Add a 1x1 convolution whose channels are the heads."""
        weight = self._weight(f"{module}.weight", (_HEADS, _HEADS, 1, 1))
        bias = self._weight(f"{module}.bias", (_HEADS,))
        return self._node("Conv", module, [scores, weight, bias], **_conv_attributes(1, 1, 1))

    def _attention_bias(self, module: str, side: int, step: int) -> str:
        """Add the learnt biases: one per head and distance (|dy|, |dx|) of query and key."""
        name = f"{module}.attention_biases"
        by_distance = self._tensor(name, (_HEADS, side * side))
        key = np.arange(side)
        distance = np.abs(key[::step, None] - key)
        dy, dx = distance[:, None, :, None], distance[None, :, None, :]
        index = (dy * side + dx).reshape(-1, side * side)
        return self._initializer(name, by_distance[:, index])

    def _upsample(self, module: str, x: _Features, scale: int) -> _Features:
        scales = self._constant(module, np.array([1, 1, scale, scale], np.float32))
        region = self._constant(module, np.array([], np.float32))  # empty: the whole map
        resized = self._node(
            "Resize",
            module,
            [x.name, region, scales],
            coordinate_transformation_mode="half_pixel",
            mode="linear",
        )
        return _Features(resized, x.channels, x.side * scale)

    def _scaled_residual(
        self, block: str, scale: str, x: _Features, branch: _Features
    ) -> _Features:
        """Add a branch to `x`, after scaling each of its channels by a learnt factor."""
        name = f"{block}.{scale}.gamma"
        gamma = self._tensor(name, (x.channels,)).reshape(1, -1, 1, 1)
        scaled = self._node(
            "Mul", f"{block}.{scale}", [branch.name, self._initializer(name, gamma)]
        )
        return self._add(block, x, _Features(scaled, x.channels, x.side))

    def _add(self, module: str, x: _Features, y: _Features) -> _Features:
        return _Features(self._node("Add", module, [x.name, y.name]), x.channels, x.side)

    def _conv_norm_act(
        self,
        module: str,
        x: _Features,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> _Features:
        y = self._conv_norm(module, x, channels, kernel=kernel, stride=stride, groups=groups)
        return self._gelu(f"{module}.bn.act", y)

    def _conv_norm(
        self,
        module: str,
        x: _Features,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> _Features:
        """Add a convolution, with the BatchNorm after it folded into its weights."""
        weight, bias = self._conv_weights(
            f"{module}.conv", x, channels, kernel=kernel, groups=groups
        )
        gamma, beta, mean, variance = (
            self._tensor(f"{module}.bn.{kind}", (channels,)) for kind in _BATCH_NORM_TENSORS
        )
        scale = gamma / np.sqrt(variance + np.float32(_BATCH_NORM_EPSILON))
        weight = weight * scale[:, None, None, None]
        bias = (bias - mean) * scale + beta
        return self._conv(f"{module}.conv", x, weight, bias, stride=stride)

    def _conv_weights(
        self, module: str, x: _Features, channels: int, *, kernel: int, groups: int
    ) -> tuple[Array, Array]:
        shape = (channels, x.channels // groups, kernel, kernel)
        return self._tensor(f"{module}.weight", shape), self._tensor(f"{module}.bias", (channels,))

    def _conv(
        self, module: str, x: _Features, weight: Array, bias: Array, *, stride: int
    ) -> _Features:
        channels, channels_in, kernel, _ = weight.shape
        weights = [
            self._initializer(f"{module}.weight", weight),
            self._initializer(f"{module}.bias", bias),
        ]
        attributes = _conv_attributes(kernel, stride, x.channels // channels_in)
        name = self._node("Conv", module, [x.name, *weights], **attributes)
        return _Features(name, channels, x.side // stride)

    def _linear(self, module: str, x: str, shape: tuple[int, int]) -> str:
        weight = self._weight(f"{module}.weight", shape)
        bias = self._weight(f"{module}.bias", shape[:1])
        return self._node("Gemm", module, [x, weight, bias], alpha=1.0, beta=1.0, transB=1)

    def _gelu(self, module: str, x: _Features) -> _Features:
        """Add a GELU as x * (erf(x / sqrt 2) + 1) * 0.5, which the BPU's compiler fuses."""
        root = self._constant(module, np.float32(math.sqrt(2)))
        y = self._node("Div", module, [x.name, root])
        y = self._node("Erf", module, [y])
        y = self._node("Add", module, [y, self._constant(module, np.float32(1))])
        y = self._node("Mul", module, [x.name, y])
        y = self._node("Mul", module, [y, self._constant(module, np.float32(0.5))])
        return _Features(y, x.channels, x.side)

    def _reshape(self, module: str, x: str, shape: Sequence[int]) -> str:
        return self._node(
            "Reshape", module, [x, self._constant(module, np.array(shape, np.int64))]
        )

    def _transpose(self, module: str, x: str) -> str:
        """Add a transposition of the last two of four axes."""
        return self._node("Transpose", module, [x], perm=[0, 1, 3, 2])

    def _constant(self, module: str, value: npt.NDArray[Any] | np.generic) -> str:
        return self._node("Constant", module, [], value=self._from_array(np.asarray(value)))

    def _weight(self, name: str, shape: Shape) -> str:
        """Add a weight without changing it."""
        return self._initializer(name, self._tensor(name, shape))

    def _initializer(self, name: str, value: Array) -> str:
        self.initializers.append(self._from_array(value, name))
        return name

    def _node(
        self, op: str, module: str, inputs: Sequence[str], *, output: str = "", **attributes: Any
    ) -> str:
        """Append a node and return the name of its output."""
        name = f"{_scope(module)}/{op}"
        count = self._names[name]
        self._names[name] += 1
        if count:
            name = f"{name}_{count}"
        output = output or f"{name}_output_0"
        self.nodes.append(self._make_node(op, inputs, [output], name, **attributes))
        return output


def _conv_attributes(kernel: int, stride: int, groups: int) -> dict[str, Any]:
    return {
        "dilations": [1, 1],
        "group": groups,
        "kernel_shape": [kernel, kernel],
        "pads": [kernel // 2] * 4,
        "strides": [stride, stride],
    }


def _scope(module: str) -> str:
    """A module's name as torch's exporter writes it: `a.0.b` is `/a/a.0/b`."""
    scope, parent = "", ""
    for part in filter(None, module.split(".")):
        scope += f"/{parent}.{part}" if part.isdigit() else f"/{part}"
        parent = part
    return scope
