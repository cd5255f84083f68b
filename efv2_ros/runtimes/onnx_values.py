"""Reads several outputs of a float ONNX model, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from efv2_ros.runtimes.base import InferenceError
from efv2_ros.runtimes.onnx import import_onnxruntime


def read_values(
    model: bytes, names: Sequence[str], inputs: Iterable[NDArray[Any]]
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Run a model of one input and read some of its outputs.

    Args:
        model: An ONNX file's content.
        names: Outputs of the model, or its input.
        inputs: Its inputs, one after the other.

    Yields:
        For each input, the values by name.

    Raises:
        RuntimeUnavailableError: ONNX Runtime is missing.
        InferenceError: The model does not run.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (argument,) = session.get_inputs()
        made = [name for name in dict.fromkeys(names) if name != argument.name]
        for each in inputs:
            values = {argument.name: each}
            if made:  # ONNX Runtime takes no name for all
                values.update(zip(made, session.run(made, values), strict=True))
            yield values
    except RuntimeError as error:  # every ONNX Runtime exception derives from it
        raise InferenceError(f"ONNX Runtime: {error}") from error
