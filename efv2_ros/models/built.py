"""Networks that are built on this machine, from the weights of a catalog or from random ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from efv2_ros.files import FileWriteError
from efv2_ros.models.catalog import ModelSpec
from efv2_ros.models.efficientformerv2 import builder as network
from efv2_ros.models.efficientformerv2 import graph
from efv2_ros.models.modelfile import ModelError, ModelFile, ModelFormat, read_model_file
from efv2_ros.resources import cache_dir


def untrained_size(spec: ModelSpec, format: ModelFormat) -> network.Size | None:
    """The size of EfficientFormerV2 that can be built for an entry; None for another model."""
    if format != "onnx":
        return None
    image = (spec.height, spec.width, spec.classes)
    if image != (network.IMAGE_SIDE, network.IMAGE_SIDE, network.CLASSES):
        return None
    return next((s for s in network.SIZES if spec.name == f"efficientformerv2_{s}"), None)


def untrained(spec: ModelSpec, size: network.Size) -> ModelFile:
    """Build the network with random weights, once for each version of the builder.

    Raises:
        ModelError: It cannot be built or stored.
    """
    name = f"{spec.name}-untrained-{_builder_hash()}"
    path = cache_dir() / "untrained" / f"{name}.onnx"
    return _built(path, f"the untrained {spec.name}", lambda: network.seeded_state(size))


def from_weights(spec: ModelSpec) -> ModelFile:
    """Build the network of the weights that the catalog names, once for each file.

    Args:
        spec: The model, which has `weights`.

    Raises:
        WeightsError: The weights cannot be read, or are not those of such a network.
        ModelError: The network cannot be built or stored.
    """
    weights = spec.weights
    assert weights is not None
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{weights} cannot be read: {error.strerror or error}") from error

    def read() -> network.State:
        state = network.load_state(weights)
        image = (network.IMAGE_SIDE, network.IMAGE_SIDE, state.classes)
        if image != (spec.height, spec.width, spec.classes):
            raise network.WeightsError(
                f"{weights} makes a network of {image[0]}x{image[1]} pixels and {image[2]} "
                f"classes, and the catalog says that {spec.name} has {spec.height}x{spec.width} "
                f"pixels and {spec.classes} classes"
            )
        return state

    name = f"{spec.name}-{digest[:16]}-{spec.classes}-{_builder_hash()}"
    return _built(cache_dir() / "built" / f"{name}.onnx", spec.name, read)


def _built(path: Path, what: str, read: Callable[[], network.State]) -> ModelFile:
    if not path.is_file():
        try:
            network.write(path, read())
        except network.BuilderUnavailableError as error:
            raise ModelError(
                f"{what} cannot be built without the packages onnx and safetensors: "
                f"pip install onnx safetensors ({error})"
            ) from error
        except FileWriteError as error:
            raise ModelError(
                f"{what} cannot be stored in {path.parent} ({error}): free space there or set "
                "XDG_CACHE_HOME"
            ) from error
    return read_model_file(path, "onnx")


def _builder_hash() -> str:
    """A short hash of the code that builds networks."""
    sources = (Path(network.__file__), Path(graph.__file__))
    return hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:12]
