"""What a quantisation starts from: the float model, checked, and the images."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from efv2_ros.classify.model import Model, load_model, with_absolute_paths
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.models.efficientformerv2.builder import SIZES, Size, seeded_state, write
from efv2_ros.quantize.calibration import Images, Sample, load_images, plan, without
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.sources import FloatFolder, Source, open_source
from efv2_ros.rewrites import gelu_count

if TYPE_CHECKING:
    from onnx import ModelProto

    from efv2_ros.models.download import DownloadProgress

_OPSETS = range(10, 12)
"""Versions of ONNX's operators that the toolchain reads."""

_SIZE = re.compile(rf"efficientformerv2_({'|'.join(SIZES)})(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class FloatModel:
    """A float model that can be quantised.

    Attributes:
        model: The model on ONNX Runtime.
        proto: Its graph; every node has a name, and the batch is 1.
        size: Size of EfficientFormerV2, such as `s0`; empty for another network.
        notes: Sentences on what will keep it slow.
    """

    model: Model
    proto: ModelProto
    size: str
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name to call results by: its entry's, the size that a file states, or the file's."""
        spec = self.model.file.spec
        is_file = spec.size == spec.name
        return self.size if is_file and _SIZE.search(spec.name) else spec.size


def find_float_model(text: str, request: ModelRequest) -> ModelRequest:
    """Make the request for a float model: a size of the catalog, or an ONNX file.

    Args:
        text: A size or name from the catalog, or the path of an ONNX file.
        request: The other options.
    """
    path = Path(text)
    if path.suffix.lower() == ".onnx" or (path.is_file() and path.suffix):
        return replace(request, model_path=text, runtime="onnx")
    return replace(request, model_size=text, runtime="onnx")


@contextmanager
def open_float_model(
    request: ModelRequest,
    crop_pct: float | None = None,
    on_progress: DownloadProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[FloatModel]:
    """Load a float model and check that it can be quantised.

    Args:
        request: From `find_float_model`.
        crop_pct: Share of the shorter side that the crop keeps; None is the catalog's.
        on_progress: Called with the bytes received and expected while it is downloaded.
        should_stop: Polled while it is downloaded.

    Raises:
        QuantizeError: It cannot be quantised.
        Efv2Error: It cannot be found or loaded; see `load_model`.
    """
    with load_model(request, on_progress, should_stop=should_stop) as model:
        if crop_pct is not None:
            spec = replace(model.file.spec, crop_pct=crop_pct)
            model = replace(model, file=replace(model.file, spec=spec))  # noqa: PLW2901
        yield check_float_model(model)


def check_float_model(model: Model) -> FloatModel:
    """Read the graph of a model, make it ready, and find what the toolchain would refuse.

    Raises:
        QuantizeError: The onnx package is missing, or the model cannot be quantised.
    """
    try:
        import onnx
    except ImportError as error:
        raise QuantizeError(f"onnx cannot be imported ({error}): pip install onnx") from error
    path = model.file.path
    try:
        proto = onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's own errors
        raise QuantizeError(f"{path} cannot be read as ONNX: {error}") from error
    _check_opset(path, proto)
    _fix_batch(path, proto)
    _name_nodes(proto)
    return FloatModel(model, proto, _size_of(model, proto), tuple(_notes(proto)))


def _check_opset(path: Path, proto: ModelProto) -> None:
    versions = [each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")]
    if not versions or versions[0] not in _OPSETS:
        found = f"opset {versions[0]}" if versions else "no opset"
        raise QuantizeError(
            f"{path} has {found}, and the toolchain reads {_OPSETS[0]} and {_OPSETS[-1]}: export "
            f"it anew with opset_version={_OPSETS[-1]}"
        )


def _fix_batch(path: Path, proto: ModelProto) -> None:
    """Make a dynamic batch 1, and refuse another dynamic size."""
    weights = {each.name for each in proto.graph.initializer}
    inputs = [each for each in proto.graph.input if each.name not in weights]
    for value in (*inputs, *proto.graph.output):
        for index, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_value > 0:
                continue
            if index:
                raise QuantizeError(
                    f"{path}: {value.name} has a dynamic shape, and the BPU needs a fixed one: "
                    "export it without dynamic_axes"
                )
            size.dim_value = 1


def _name_nodes(proto: ModelProto) -> None:
    """Name the nodes without a name, since rules and reports go by names."""
    known = {node.name for node in proto.graph.node}
    number = 0
    for node in proto.graph.node:
        while not node.name:
            name = f"{node.op_type}_{number}"
            number += 1
            if name not in known:
                node.name = name
                known.add(name)


def _size_of(model: Model, proto: ModelProto) -> str:
    """Size of EfficientFormerV2: by the catalog's entry, else by what the file says of itself."""
    metadata = {each.key: each.value for each in proto.metadata_props}
    for each in (model.file.spec.name, metadata.get("model", ""), proto.graph.name):
        if found := _SIZE.match(each):
            return found[1]
    return ""


def _notes(proto: ModelProto) -> Iterator[str]:
    erfs, gelus = sum(node.op_type == "Erf" for node in proto.graph.node), gelu_count(proto)
    if erfs > gelus:
        yield (
            f"{erfs - gelus} of {erfs} GELUs have a form that the compiler does not fuse, which "
            "costs latency: was the model changed by a simplifier such as onnxsim? Export it anew "
            "without."
        )


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that a recipe is applied to.

    Attributes:
        source: The float model.
        view: How images become its input.
        images: The calibration images.
        evaluation: Other images, to compare the models with.
        evaluation_path: Where those are from.
    """

    source: FloatModel
    view: ViewOptions
    images: Images
    evaluation: tuple[Sample, ...]
    evaluation_path: Path


def read_inputs(
    source: FloatModel,
    calibration: Source,
    evaluation: Source | None,
    view: ViewOptions,
    *,
    count: int,
    held_out: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Inputs:
    """Read the calibration images, and others: of `evaluation`, else of the same source.

    Args:
        source: The float model.
        calibration: Where the calibration images are.
        evaluation: Where the others are; None holds back some of `calibration`.
        view: How images become the model's input.
        count: Most calibration images.
        held_out: Most other images.
        seed: Seed of the choice.
        on_progress: Called with the number of images read.
        should_stop: Polled for each image.

    Raises:
        QuantizeError: The images cannot be read.
        Stopped: `should_stop` returned True.
    """
    own = held_out if evaluation is None else 0
    split = plan(calibration, count, own, seed)
    images = load_images(
        calibration, split, source.model, view, seed,
        on_progress=on_progress, should_stop=should_stop,
    )  # fmt: skip
    others, path = images.held_out, calibration.path
    if evaluation is not None:
        if isinstance(evaluation, FloatFolder):
            raise QuantizeError(f"{evaluation.path} holds arrays, and images are compared")
        before = len(images.calibration)
        found = load_images(
            evaluation, evaluation.split(0, held_out, seed), source.model, view, seed,
            on_progress=lambda done: on_progress(before + done), should_stop=should_stop,
        )  # fmt: skip
        others, path = found.held_out, evaluation.path
    return Inputs(source, view, images, without(others, images.calibration), path)


@dataclass(frozen=True)
class Sources:
    """Where the model and the images are, and how many images to take.

    Attributes:
        request: The model, from `find_float_model`.
        view: How images become its input.
        calib: The calibration images: a folder, or a bag.
        topic: Topic of the images of a bag; may be empty.
        eval_path: Images to compare the models with; None takes others of `calib`.
        count: Most calibration images.
        held_out: Most images to compare with.
        seed: Seed of the images' choice.
        crop_pct: Share of the shorter side that the crop keeps; None is the catalog's.
    """

    request: ModelRequest
    view: ViewOptions
    calib: Path
    topic: str
    eval_path: Path | None
    count: int
    held_out: int
    seed: int
    crop_pct: float | None

    def absolute(self) -> Sources:
        """Describe the same files for processes that run in another folder."""
        return replace(
            self,
            request=with_absolute_paths(self.request),
            calib=self.calib.absolute(),
            eval_path=self.eval_path and self.eval_path.absolute(),
        )

    @contextmanager
    def open(self) -> Iterator[Inputs]:
        """Load the model and read the images.

        Raises:
            QuantizeError: They cannot be used.
            Efv2Error: The model cannot be found or loaded.
        """
        with open_float_model(self.request, self.crop_pct) as source:
            yield self.read(source)

    def read(
        self,
        source: FloatModel,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Inputs:
        """Read the images for a model.

        Args:
            source: The model.
            on_progress: Called with the number of images read, and of those to read at most.
            should_stop: Polled for each image.

        Raises:
            QuantizeError: The images cannot be read.
            Stopped: `should_stop` returned True.
        """
        image = source.model.image
        calibration = open_source(self.calib, image.height, image.width, self.topic)
        evaluation = None
        if self.eval_path is not None:
            evaluation = open_source(self.eval_path, image.height, image.width)
        total = min(self.count + self.held_out, len(calibration) + len(evaluation or ()))
        on_progress(0, total)
        return read_inputs(
            source, calibration, evaluation, self.view, count=self.count, held_out=self.held_out,
            seed=self.seed, on_progress=lambda done: on_progress(done, total),
            should_stop=should_stop,
        )  # fmt: skip


@contextmanager
def open_size(
    size: str,
    images: Path,
    model: Path | None = None,
    *,
    count: int,
    held_out: int,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Inputs]:
    """Open a size of EfficientFormerV2 with images, for measurements.

    Args:
        size: The size.
        images: Folder of images, or a bag.
        model: The network, an ONNX file; None makes one of random weights, from `seed`.
        count: Most calibration images.
        held_out: Most other images.
        seed: Seed of the images' choice, and of the weights.
        should_stop: Polled for each image.

    Raises:
        QuantizeError: The images cannot be read.
        Efv2Error: The model cannot be loaded.
        Stopped: `should_stop` returned True.
    """
    with tempfile.TemporaryDirectory(prefix="efv2_size_") as folder:
        path = model
        if path is None:
            path = Path(folder) / f"{size}.onnx"
            write(path, seeded_state(cast("Size", size), seed))
        request = replace(find_float_model(str(path), ModelRequest()), model_size=size)
        with open_float_model(request) as source:
            image = source.model.image
            yield read_inputs(
                source, open_source(images, image.height, image.width), None, ViewOptions(),
                count=count, held_out=held_out, seed=seed, should_stop=should_stop,
            )  # fmt: skip


def digest_text(*parts: str) -> str:
    """Compute the SHA-256 of some texts."""
    found = hashlib.sha256()
    for each in parts:
        found.update(hashlib.sha256(each.encode()).digest())
    return found.hexdigest()


def proto_sha256(proto: ModelProto) -> str:
    """Compute the SHA-256 of a graph with its weights."""
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
