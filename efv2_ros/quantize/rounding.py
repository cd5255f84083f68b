"""Rounds the weights of convolutions so that their outputs, not the weights, change least.

GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023, algorithm 1), with the grid that the toolchain uses: 8 bits, and for each
output channel the step that its largest weight has at 127. The toolchain then finds weights that
are on its grid already, and changes none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from efv2_ros import __version__
from efv2_ros.errors import Efv2Error
from efv2_ros.files import open_atomic_binary
from efv2_ros.quantize.calibration import digest, network_input
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.prepare import Inputs, digest_text, proto_sha256
from efv2_ros.resources import cache_dir
from efv2_ros.rewrites.graph import Graph
from efv2_ros.runtimes.onnx_values import read_values
from efv2_ros.toolchain.environment import Stopped

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Matrix = NDArray[np.float64]

LARGEST = 127
"""The largest integer of a weight."""

POSITIONS = 400
"""Places of a feature map that are looked at, of each image."""

DAMPING = 0.01
"""What is added to the diagonal of the inputs' products, as a share of its mean (GPTQ, section 3).
"""

_BLOCK = 64
"""Columns after which the rest of the weights is corrected at once."""

_FORMAT = 1
"""Version of what the cache holds."""

_BUSY = threading.Lock()
_POLL_S = 0.1


@dataclass(eq=False)
class Layer:
    """A convolution whose weights are rounded.

    Attributes:
        node: The node.
        weights: float64 of shape (groups, outputs of a group, inputs of an output).
        shape: Shape of the weights in the model.
        stride: Step of the kernel in rows and columns.
        pads: Zeros above, left, below and right.
        products: Sum over the places of input times input, (groups, inputs, inputs).
    """

    node: NodeProto
    weights: Matrix
    shape: tuple[int, ...]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    products: Matrix

    def look_at(self, image: NDArray[np.float32], random: np.random.Generator) -> None:
        """Take note of an input, float32 of shape (1, channels, height, width)."""
        columns = self.columns(image[0])
        if columns.shape[2] > POSITIONS:
            columns = columns[:, :, random.integers(0, columns.shape[2], POSITIONS)]
        wide = columns.astype(np.float64)
        with np.errstate(invalid="ignore"):  # values that are no numbers are told of later
            self.products += wide @ wide.transpose(0, 2, 1)

    def columns(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Collect what each output is computed of: (groups, inputs of an output, places)."""
        height, width = self.shape[2:]
        top, left, bottom, right = self.pads
        padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(  # type: ignore[call-overload]
            padded, (height, width), (1, 2)
        )
        windows = windows[:, :: self.stride[0], :: self.stride[1]]
        groups, _, inputs = self.weights.shape
        found: NDArray[np.float32] = windows.transpose(0, 3, 4, 1, 2).reshape(groups, inputs, -1)
        return found


def rounded_model(
    inputs: Inputs,
    proto: ModelProto,
    *,
    use_cache: bool = True,
    on_progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ModelProto:
    """Round the weights of a model with its calibration images, or take it from the cache.

    Recipes with the same rewrites share the result. Of several that are made at the same time, the
    first does the work.

    Args:
        inputs: The float model and its images.
        proto: Its graph, rewritten.
        use_cache: Whether the result may be read from and kept in the cache.
        on_progress: Called with the share that is done.
        should_stop: Polled.

    Raises:
        InferenceError: The model does not run.
        QuantizeError: A layer reads values that are no numbers.
        Stopped: `should_stop` returned True.
    """
    image, samples = inputs.source.model.image, inputs.images.calibration
    key = digest_text(str(_FORMAT), __version__, proto_sha256(proto), digest(samples), repr(image))
    place = cache_dir() / "quantize" / "rounded" / f"{key[:32]}.onnx"
    with _one_at_a_time(should_stop):
        if use_cache:
            known = type(proto)()
            with suppress(Exception):  # protobuf's errors too
                known.ParseFromString(place.read_bytes())
                return known
        images = [partial(network_input, each, image) for each in samples]
        rounded = round_weights(proto, images, on_progress=on_progress, should_stop=should_stop)
        if use_cache:
            with suppress(OSError, Efv2Error):  # it is only a cache
                place.parent.mkdir(parents=True, exist_ok=True)
                with open_atomic_binary(place) as file:
                    file.write(rounded.SerializeToString(deterministic=True))
        return rounded


@contextmanager
def _one_at_a_time(should_stop: Callable[[], bool]) -> Iterator[None]:
    while not _BUSY.acquire(timeout=_POLL_S):
        if should_stop():
            raise Stopped
    try:
        yield
    finally:
        _BUSY.release()


def round_weights(
    proto: ModelProto,
    images: Sequence[Callable[[], NDArray[np.float32]]],
    *,
    on_progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ModelProto:
    """Round the weights of a model's convolutions to the 8 bits that the toolchain gives them.

    Args:
        proto: The float model, of one input and batch 1; it is not changed.
        images: Each makes an input of the model, float32 of shape (1, 3, height, width).
        on_progress: Called with the share that is done.
        should_stop: Polled.

    Returns:
        A model whose weights are on the toolchain's grid.

    Raises:
        InferenceError: The model does not run.
        QuantizeError: A layer reads values that are no numbers.
        Stopped: `should_stop` returned True.
    """
    model = type(proto)()
    model.CopyFrom(proto)
    graph = Graph(model)
    layers = list(convolutions_to_round(graph))
    _look(proto, layers, images, lambda share: on_progress(0.7 * share), should_stop)
    for number, layer in enumerate(layers):
        if should_stop():
            raise Stopped
        if not np.isfinite(layer.products).all():
            raise QuantizeError(
                f"the weights of {layer.node.name} cannot be rounded: for a calibration image, it "
                "reads values that are infinite or no numbers"
            )
        rounded = np.stack([
            gptq(weights, products)
            for weights, products in zip(layer.weights, layer.products, strict=True)
        ]).reshape(layer.shape).astype(np.float32)  # fmt: skip
        name = graph.initializer(f"{layer.node.input[1]}_rounded", rounded)
        graph.set_input(layer.node, 1, name)
        on_progress(0.7 + 0.3 * (number + 1) / len(layers))
    graph.finish()
    return model


def gptq(weights: Matrix, products: Matrix) -> Matrix:
    """Round the weights of some outputs of the same inputs.

    Args:
        weights: float64 of shape (outputs, inputs).
        products: Sum over samples of input times input, float64 of shape (inputs, inputs).

    Returns:
        The weights, each row in whole steps of its largest one's 127th part, which stays.
    """
    step = np.abs(weights).max(1) / LARGEST
    step[step == 0] = 1
    # Inputs of large values first: what is rounded late has few others to make up for its error.
    order = np.argsort(-np.diag(products), kind="stable")
    left = weights[:, order].copy()
    largest = np.abs(left).argmax(1)
    damped = products[np.ix_(order, order)].copy()
    damped[np.diag_indices_from(damped)] += DAMPING * np.diag(products).mean() + 1e-12
    # The upper factor of the inverse: its rows are what GPTQ passes errors on with.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    rounded = np.zeros_like(left)
    columns = left.shape[1]
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        errors = np.zeros((len(left), end - begin))
        for column in range(begin, end):
            whole = np.clip(np.rint(left[:, column] / step), -LARGEST, LARGEST)
            kept = largest == column
            original = weights[kept, order[column]]
            whole[kept] = np.rint(original / step[kept])
            rounded[:, column] = whole * step
            error = (left[:, column] - rounded[:, column]) / factor[column, column]
            left[:, column + 1 : end] -= np.outer(error, factor[column, column + 1 : end])
            errors[:, column - begin] = error
        left[:, end:] -= errors @ factor[begin:end, end:]
    result = np.empty_like(rounded)
    result[:, order] = rounded
    return result


def convolutions_to_round(graph: Graph) -> Iterator[Layer]:
    """Find the convolutions of constant weights, of two axes, and without gaps in the kernel."""
    for node in graph.nodes("Conv"):
        weights = graph.constant(node.input[1])
        if weights is None or weights.ndim != 4:
            continue
        if graph.attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            continue
        if set(graph.attribute(node, "dilations", [1])) != {1}:
            continue
        groups = graph.attribute(node, "group", 1)
        flat = weights.astype(np.float64).reshape(groups, len(weights) // groups, -1)
        inputs = flat.shape[2]
        yield Layer(
            node, flat, weights.shape, tuple(graph.attribute(node, "strides", [1, 1])),
            tuple(graph.attribute(node, "pads", [0] * 4)), np.zeros((groups, inputs, inputs)),
        )  # fmt: skip


def _look(
    proto: ModelProto,
    layers: Sequence[Layer],
    images: Sequence[Callable[[], NDArray[np.float32]]],
    on_progress: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> None:
    """Run the model on the images and collect what its convolutions read."""
    from onnx import TensorProto, helper

    names = list(dict.fromkeys(layer.node.input[0] for layer in layers))
    model = type(proto)()
    model.CopyFrom(proto)
    given = {each.name for each in (*model.graph.input, *model.graph.output)}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in given
    )
    made = read_values(model.SerializeToString(), names, (make() for make in images))
    random = np.random.default_rng(0)
    for number, values in enumerate(made):
        if should_stop():
            raise Stopped
        for layer in layers:
            layer.look_at(values[layer.node.input[0]], random)
        on_progress((number + 1) / len(images))
