"""Runtime `onnx`: float models on the CPU through ONNX Runtime, with the BPU's NV12 input.

The X5's compiled models begin with a node that converts NV12 to normalised RGB. This runtime runs
an ONNX graph that does the same before the float model, so that both get the same pixels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.runtimes import onnx_encoder as encoder
from efv2_ros.runtimes.base import (
    ImageInput,
    InferenceError,
    ModelLoadError,
    RunOptions,
    Runtime,
    RuntimeInfo,
    RuntimeUnavailableError,
)
from efv2_ros.runtimes.onnx_encoder import node
from efv2_ros.vision.planes import Nv12Planes

if TYPE_CHECKING:
    import onnxruntime as ort

# R, G, B (rows) from Y, U-128, V-128 (columns) for full-range BT.601, with the constants of the
# preprocessing node in the X5's compiled models (YUV_BT601_FULL_RANGE_128).
_FULL_RANGE = np.array([[1.0, 0.0, 1.4017], [1.0, -0.3437, -0.7142], [1.0, 1.7722, 0.0]])


def rgb_from_yuv(image: ImageInput) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the 3x3 matrix and the offset from Y, U, V bytes to the model's input."""
    matrix, zero = _FULL_RANGE, np.array([0.0, 128.0, 128.0])
    if image.nv12_range == "limited":
        # ITU-R BT.601: luma is 16..235 and chroma 16..240, instead of 0..255 for both.
        matrix = matrix * np.array([255 / 219, 255 / 224, 255 / 224])
        zero = np.array([16.0, 128.0, 128.0])
    scale = np.asarray(image.scale)
    return matrix * scale[:, None], -(matrix @ zero + np.asarray(image.mean)) * scale


def preprocessing_model(image: ImageInput) -> bytes:
    """Encode an ONNX model that converts NV12 to a network's input.

    Its input `nv12` is uint8 of `image.nv12_shape`. Its output `data` is normalised RGB, float32
    of shape (1, 3, height, width). Each chroma sample is used for its 2x2 pixels without
    interpolation, as on the BPU.
    """
    height, width = image.height, image.width
    matrix, offset = rgb_from_yuv(image)
    constants: dict[str, NDArray[Any]] = {
        "rows": np.array([height, height // 2], np.int64),
        "y_shape": np.array([1, 1, height, width], np.int64),
        "uv_shape": np.array([1, height // 2, width // 2, 2], np.int64),
        "rgb_from_y": matrix[:, 0].astype(np.float32).reshape(1, 3, 1, 1),
        "rgb_from_uv": matrix[:, 1:].astype(np.float32).reshape(3, 2, 1, 1),
        "offset": offset.astype(np.float32),
        "no_roi": np.empty(0, np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
    }
    # The chroma part is computed once per sample and replicated afterwards, which is twice as fast
    # as a 3x3 convolution over three full-size planes.
    float32 = encoder.data_type(np.float32)
    nodes = [
        node("Split", ["nv12", "rows"], ["y_rows", "uv_rows"], axis=0),
        node("Reshape", ["y_rows", "y_shape"], ["y_bytes"]),
        node("Cast", ["y_bytes"], ["y"], to=float32),
        node("Mul", ["y", "rgb_from_y"], ["luma"]),
        node("Reshape", ["uv_rows", "uv_shape"], ["uv_pairs"]),
        node("Transpose", ["uv_pairs"], ["uv_bytes"], perm=[0, 3, 1, 2]),
        node("Cast", ["uv_bytes"], ["uv"], to=float32),
        node("Conv", ["uv", "rgb_from_uv", "offset"], ["chroma_samples"]),
        node(
            "Resize",
            ["chroma_samples", "no_roi", "twice"],
            ["chroma"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        node("Add", ["luma", "chroma"], ["data"]),
    ]
    graph = encoder.graph(
        "nv12_to_rgb",
        nodes,
        [encoder.value_info("nv12", np.uint8, image.nv12_shape)],
        [encoder.value_info("data", np.float32, (1, 3, height, width))],
        constants,
    )
    return encoder.model(graph, opset=13, ir_version=7)


class _Slot:
    """Preallocated buffers, bound to a session of the preprocessing and one of the network."""

    def __init__(
        self, preprocess: ort.InferenceSession, network: ort.InferenceSession, image: ImageInput
    ) -> None:
        nv12 = np.empty(image.nv12_shape, np.uint8)
        self.nv12 = Nv12Planes.of(nv12)
        self._data = np.empty((1, 3, image.height, image.width), np.float32)
        (output,) = network.get_outputs()
        self._logits = np.empty([_extent(n) for n in output.shape], np.float32)
        self._preprocess = (preprocess, _bind(preprocess, nv12, self._data))
        self._network = (network, _bind(network, self._data, self._logits))

    def commit(self) -> None:
        _run(*self._preprocess)

    def infer(self) -> NDArray[np.float32]:
        _run(*self._network)
        return self._logits.reshape(-1).copy()


def _run(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    try:
        session.run_with_iobinding(binding)
    except RuntimeError as error:  # every ONNX Runtime exception derives from it
        raise InferenceError(f"ONNX Runtime: {error}") from error


class OnnxRuntime(Runtime):
    """A float model on ONNX Runtime's CPU provider."""

    def __init__(self, path: Path, image: ImageInput, run: RunOptions) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = run.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Between two frames, idle threads must leave the CPU to the rest of the robot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        network = _load(ort, path, options)
        classes = _check_signature(network, path, image)
        options.intra_op_num_threads = 1
        preprocess = ort.InferenceSession(
            preprocessing_model(image), options, providers=["CPUExecutionProvider"]
        )
        super().__init__(
            RuntimeInfo("onnx", ort.__version__, "CPU", classes),
            image,
            [_Slot(preprocess, network, image) for _ in range(run.slots)],
        )


def probe() -> str:
    """Name ONNX Runtime's version.

    Raises:
        RuntimeUnavailableError: It cannot be imported; the message has the fix.
    """
    return f"ONNX Runtime {import_onnxruntime().__version__}"


def load(path: Path, image: ImageInput, options: RunOptions) -> OnnxRuntime:
    """Load a float ONNX classifier; see `open_runtime`."""
    return OnnxRuntime(path, image, options)


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        RuntimeUnavailableError: It cannot be imported; the message has the fix.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime cannot be imported ({error}): pip install onnxruntime"
        ) from error
    return onnxruntime


def _load(ort: Any, path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types for a bad file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelLoadError(f"{path} is not a model ONNX Runtime can load: {reason}") from error


def _check_signature(session: ort.InferenceSession, path: Path, image: ImageInput) -> int:
    """Check that a model takes one RGB image and returns logits, and count its classes."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted = [1, 3, image.height, image.width]
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
        raise ModelLoadError(f"{path} must have one float input of shape {wanted}")
    for found, extent in zip(inputs[0].shape, wanted, strict=True):
        if isinstance(found, int) and found != extent:
            raise ModelLoadError(f"{path} takes {inputs[0].shape}, not {wanted}")
    if len(outputs) != 1 or outputs[0].type != "tensor(float)":
        raise ModelLoadError(f"{path} must have one float output")
    classes = math.prod(_extent(n) for n in outputs[0].shape)
    if classes < 1:
        raise ModelLoadError(f"{path} returns output of shape {outputs[0].shape}, without a class")
    return classes


def _extent(dimension: int | str | None) -> int:
    """Size of a dimension. A symbolic dimension is the batch, which is 1."""
    return dimension if isinstance(dimension, int) else 1


def _bind(
    session: ort.InferenceSession, source: NDArray[Any], destination: NDArray[Any]
) -> ort.IOBinding:
    binding = session.io_binding()
    (tensor_in,), (tensor_out,) = session.get_inputs(), session.get_outputs()
    binding.bind_input(
        tensor_in.name, "cpu", 0, source.dtype.type, source.shape, source.ctypes.data
    )
    binding.bind_output(
        tensor_out.name, "cpu", 0, destination.dtype.type, destination.shape,
        destination.ctypes.data,
    )  # fmt: skip
    return binding
