"""Finds what the vendor's programs would fail at with words that do not help."""

from pathlib import Path
from typing import Any

import onnx
from onnx import checker


class RequestError(Exception):
    """What is wrong with the request, as a whole sentence for the user."""


def check(request: dict[str, Any]) -> None:
    """Check the model, the rules and the images of a request.

    Raises:
        RequestError: One of them cannot be used.
    """
    model = _load(Path(request["model"]))
    shape = _check_input(model, request["model"])
    names = {node.name for node in model.graph.node}
    unknown = sorted({rule["name"] for rule in request["nodes"]} - names)
    if unknown:
        raise RequestError(f"{request['model']} has no node {unknown[0]}, which a rule names")
    _check_images(Path(request["calibration"]), shape)


def _load(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from error
    try:
        model = onnx.load_model_from_string(content)
        if not model.graph.node:
            raise ValueError
    except Exception as error:  # protobuf's errors have no common base
        raise RequestError(f"{path} is no whole ONNX file") from error
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise RequestError(f"{path} is no valid model: {_first_line(error)}") from error
    return model


def _check_input(model: Any, path: str) -> list[int]:
    """Check that the model takes one image; return its shape."""
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    outputs = model.graph.output
    if len(inputs) != 1 or len(outputs) != 1:
        raise RequestError(
            f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed"
        )
    sides = inputs[0].type.tensor_type.shape.dim
    shape = [each.dim_value for each in sides]
    told = " x ".join(str(each.dim_value or each.dim_param or "?") for each in sides)
    if len(shape) != 4 or shape[:2] != [1, 3] or 0 in shape:
        raise RequestError(
            f"{path} takes {told}, and a fixed shape 1 x 3 x height x width is needed"
        )
    if shape[2] % 2 or shape[3] % 2:
        raise RequestError(f"{path} takes {told}, and NV12 needs even sides")
    return shape


def _check_images(folder: Path, shape: list[int]) -> None:
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise RequestError(f"calibration images {folder}: {error.strerror}") from error
    if not files:
        raise RequestError(f"there is no calibration image in {folder}")
    size = 4 * shape[1] * shape[2] * shape[3]
    for file in files:
        if file.suffix != ".rgb" or file.stat().st_size != size:
            raise RequestError(
                f"{file} is no calibration image: a *.rgb file of {size} bytes is needed"
            )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
