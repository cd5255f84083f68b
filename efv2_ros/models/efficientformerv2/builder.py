"""Build EfficientFormerV2 as an ONNX model, without torch.

The graph equals the one that `torch.onnx.export` makes of timm's model in evaluation mode at opset
11, node for node and with the same node names. This matters because recipes for the BPU toolchain
refer to nodes by name, and its compiler fuses a GELU only if it has the five nodes of that export.
BatchNorm is folded into the convolution before it, as the exporter does. There is one difference:
the attention biases are gathered when the graph is built, not when it runs.

Paper: Li et al., Rethinking Vision Transformers for MobileNet Size and Speed,
https://arxiv.org/abs/2212.08059. Definition: timm/models/efficientformer_v2.py (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from efv2_ros.files import FileWriteError, open_atomic_binary
from efv2_ros.models.efficientformerv2.graph import (
    ARCHITECTURES,
    CLASSES,
    IMAGE_SIDE,
    SIZES,
    Array,
    BuilderUnavailableError,
    Network,
    Shape,
    Size,
)
from efv2_ros.models.modelfile import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto


__all__ = [
    "CLASSES",
    "IMAGE_SIDE",
    "SIZES",
    "BuilderUnavailableError",
    "Size",
    "State",
    "WeightsError",
    "build",
    "load_state",
    "parameter_count",
    "parameter_shapes",
    "seeded_state",
    "write",
]

_OPSET = 11
_IR_VERSION = 6  # of ONNX 1.6, which brought opset 11

# Ranges of random values, by the last part of a tensor's name. With timm's initial layer scale
# (gamma) of 1e-5, no block would have an effect.
_RANGES: Mapping[str, tuple[float, float]] = {
    "weight": (0.8, 1.2),  # BatchNorm
    "bias": (-0.02, 0.02),
    "running_mean": (-0.02, 0.02),
    "running_var": (0.8, 1.4),
    "gamma": (0.2, 1.0),
    "attention_biases": (-1.0, 1.0),
}
_HEAD_GAIN = 6  # gives logits a standard deviation of 1.5 (s0) to 5 (l)


class WeightsError(ModelError):
    """Weights that do not fit an EfficientFormerV2; the message says why."""


# --- Weights


@dataclass(frozen=True)
class State:
    """All weights of one network.

    Attributes:
        size: Size of the network.
        tensors: float32 arrays by timm's names (`stem.conv1.conv.weight`, ...): exactly those of
            `parameter_shapes(size, classes)`.
        source: Where the weights come from, for people. It is stored in the model's metadata, and
            starts with `untrained` if the weights were never trained.

    Raises:
        WeightsError: A tensor is missing, has the wrong shape, or is not part of the network.
    """

    size: Size
    tensors: Mapping[str, Array]
    source: str

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.tensors["head.bias"])

    def __post_init__(self) -> None:
        bias = self.tensors.get("head.bias")
        classes = len(bias) if bias is not None and bias.ndim == 1 else CLASSES
        expected = parameter_shapes(self.size, classes)
        network = f"efficientformerv2_{self.size}"
        if missing := [name for name in expected if name not in self.tensors]:
            raise WeightsError(f"{network} needs {_some(missing)}")
        if extra := [name for name in self.tensors if name not in expected]:
            raise WeightsError(f"{network} has no {_some(extra)}")
        for name, shape in expected.items():
            if self.tensors[name].shape != shape:
                raise WeightsError(
                    f"{name} has shape {list(self.tensors[name].shape)}, "
                    f"but in {network} it is {list(shape)}"
                )


def load_state(path: Path, size: Size | None = None) -> State:
    """Read trained weights from a safetensors file.

    Args:
        path: A file with timm's tensor names, such as the `model.safetensors` of
            `timm/efficientformerv2_s0.snap_dist_in1k` on the Hugging Face hub.
        size: The size of network that the weights must fit; None accepts any.

    Raises:
        WeightsError: The file cannot be read, is no safetensors file, or holds other weights.
        BuilderUnavailableError: The safetensors package is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as error:
        raise BuilderUnavailableError(
            f"{path} cannot be read without the safetensors package: pip install safetensors "
            f"({error})"
        ) from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        stored: dict[str, npt.NDArray[Any]] = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a safetensors file of weights: {error}") from error

    # num_batches_tracked is a counter that only training uses.
    tensors = {n: t for n, t in stored.items() if not n.endswith(".num_batches_tracked")}
    for name, tensor in tensors.items():
        if not np.issubdtype(tensor.dtype, np.floating):
            raise WeightsError(f"{path}: {name} is {tensor.dtype}, not floating point")

    found = _size_of(path, tensors)
    if size is not None and size != found:
        raise WeightsError(f"{path} holds efficientformerv2_{found}, not efficientformerv2_{size}")
    source = f"{path.name} sha256 {hashlib.sha256(content).hexdigest()}"
    weights = {name: tensor.astype(np.float32, copy=False) for name, tensor in tensors.items()}
    try:
        return State(found, weights, source)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def seeded_state(size: Size, seed: int = 0, classes: int = CLASSES) -> State:
    """Make random weights. The network is untrained, but its logits depend on the image.

    Each tensor has its own random stream, seeded by `seed` and the tensor's name. NumPy's legacy
    generator never changes, so the values are the same with every NumPy on every machine.

    Args:
        size: Size of the network.
        seed: 0..2**32 - 1.
        classes: Number of classes, at least 1.

    Raises:
        BuilderUnavailableError: The onnx package is not installed.
    """
    return State(
        size,
        {
            name: _random_tensor(np.random.RandomState([seed, zlib.crc32(name.encode())]), name, s)
            for name, s in parameter_shapes(size, classes).items()
        },
        f"untrained seed {seed}",
    )


@cache
def parameter_shapes(size: Size, classes: int = CLASSES) -> Mapping[str, Shape]:
    """List the shapes of a network's tensors by timm's names, with BatchNorm's statistics."""
    shapes: dict[str, Shape] = {}

    def record(name: str, shape: Shape) -> Array:
        shapes[name] = shape
        return np.zeros(shape, np.float32)

    Network(record).classifier(ARCHITECTURES[size], classes)
    return shapes


def parameter_count(size: Size, classes: int = CLASSES) -> int:
    """Count a network's trainable parameters, before BatchNorm is folded."""
    return sum(
        math.prod(shape)
        for name, shape in parameter_shapes(size, classes).items()
        if "running_" not in name
    )


def _random_tensor(random: np.random.RandomState, name: str, shape: Shape) -> Array:
    """Draw values with which the logits depend on the image and stay in a natural range.

    Sums are taken over integers, which makes them exact in any order of addition.
    """
    kind = name.rsplit(".", 1)[-1]
    if kind == "weight" and len(shape) > 1:
        return _random_filters(random, shape)
    low, high = _RANGES[kind]
    return (low + (high - low) * random.random_sample(shape)).astype(np.float32)


def _random_filters(random: np.random.RandomState, shape: Shape) -> Array:
    """Draw weights of a convolution or linear layer, with norm 1 for each output."""
    inputs, axes = shape[1], tuple(range(1, len(shape)))
    draws = random.randint(-1024, 1024, shape, dtype=np.int64)
    if inputs != 3:
        # Zero mean: the mean of a GELU's outputs carries no information about the image, and
        # would grow from layer to layer. The image's own channels have no such mean.
        draws = math.prod(shape[1:]) * draws - draws.sum(axes, keepdims=True)
    filters: npt.NDArray[np.float64] = draws / np.sqrt((draws**2).sum(axes, keepdims=True))
    if inputs == 1:
        filters += 1 / math.prod(shape[1:])  # depthwise: a channel's own mean carries information
    if len(shape) == 2:
        filters *= _HEAD_GAIN
    return filters.astype(np.float32)


def _size_of(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> Size:
    """Find the size of network by the width of its last stage, which no two sizes share."""
    norm = tensors.get("norm.weight")
    if norm is None:
        raise WeightsError(f"{path} is not of timm's EfficientFormerV2: it has no norm.weight")
    for size, architecture in ARCHITECTURES.items():
        if norm.shape == architecture.widths[-1:]:
            return size
    raise WeightsError(
        f"{path} is of no size of EfficientFormerV2: norm.weight has shape {list(norm.shape)}"
    )


def _some(names: Sequence[str]) -> str:
    """Name the first of a list, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


# --- The model


def build(state: State) -> ModelProto:
    """Build the ONNX model: opset 11, `data` float32 1x3x224x224 to `output` float32 1xclasses.

    `data` is a normalised RGB image, `output` the logits. The metadata has `model` (for example
    `efficientformerv2_s0`) and `weights`, the state's source.

    Args:
        state: The weights, which determine the size and the number of classes.

    Raises:
        BuilderUnavailableError: The onnx package is not installed.
    """
    name = f"efficientformerv2_{state.size}"
    network = Network(lambda tensor, _: state.tensors[tensor])
    from onnx import TensorProto, helper  # Network has checked that it is installed

    network.classifier(ARCHITECTURES[state.size], state.classes)
    image = [1, 3, IMAGE_SIDE, IMAGE_SIDE]
    graph = helper.make_graph(
        network.nodes,
        name,
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, state.classes])],
        network.initializers,
    )
    model = helper.make_model(
        graph,
        producer_name="efv2_ros",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, {"model": name, "weights": state.source})
    return model


def write(path: Path, state: State) -> None:
    """Build a model and write it to a file, which appears whole or not at all.

    Args:
        path: The file to make or replace. Its folder is made if it does not exist.
        state: The weights, which determine the size and the number of classes.

    Raises:
        FileWriteError: The file cannot be written.
        BuilderUnavailableError: The onnx package is not installed.
    """
    content = build(state).SerializeToString(deterministic=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"cannot write {path}: {error.strerror or error}") from error
    with open_atomic_binary(path) as file:
        file.write(content)
