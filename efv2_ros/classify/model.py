"""Finding, checking and loading a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from efv2_ros.classify.options import ModelRequest
from efv2_ros.models.catalog import Catalog, ModelSpec, spec_for_file
from efv2_ros.models.labels import LabelsError, load_labels
from efv2_ros.models.modelfile import ModelError
from efv2_ros.models.store import ModelNotFoundError, ResolvedModel, resolve
from efv2_ros.runtimes.base import ImageInput, Runtime, open_runtime

Progress = Callable[[int, int | None], None]
"""Told of the bytes received so far and the bytes expected, while a download runs."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model in memory with all that describes it. Made by `load_model`.

    Attributes:
        request: What was asked for.
        file: What was found.
        image: The image the model takes.
        runtime: What runs it.
        labels: A name for each class; an untrained network's say that it is.
    """

    request: ModelRequest
    file: ResolvedModel
    image: ImageInput
    runtime: Runtime
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's name; an untrained one says so."""
        return f"{self.file.spec.name} (untrained)" if self.file.untrained else self.file.spec.name

    def close(self) -> None:
        """Free the runtime."""
        self.runtime.close()


def find_model(request: ModelRequest, progress: Progress | None = None) -> ResolvedModel:
    """The file a request means, checked against its lock file, without loading it.

    Raises:
        ModelError: The catalog has no such model or is broken, there is no such file, or the
            file is damaged.
        RuntimeUnavailableError: There is no such runtime, or none that works here.
    """
    return _find(request, progress)[1]


def check_request(request: ModelRequest) -> None:
    """Refuse what no download can fix, without loading, fetching or building anything.

    A request that passes may still fail: in the download, or because the runtime cannot run the
    file.

    Raises:
        ModelError: The catalog has no such model or cannot be used, a file it names does not
            exist, the model file is damaged, or there is no model file and none may be fetched or
            built.
        RuntimeUnavailableError: There is no such runtime, or none that works here.
        LabelsError: The labels cannot be read, or their number is not that of the classes.
    """
    _, kind = request.select_runtime()
    if request.runtime != "auto":  # `auto` takes only what works
        kind.probe()
    spec = _describe(request)
    try:
        find_model(replace(request, allow_download=False, allow_untrained=False))
    except ModelNotFoundError:
        source = spec.files.get(kind.model_format)
        may_fetch = request.allow_download and source is not None and source.url is not None
        may_build = request.allow_untrained and kind.model_format == "onnx"
        if request.model_path or not (may_fetch or may_build):
            raise
    # The number of classes of a .bin that no catalog lists is unknown before it is loaded.
    if spec.labels is not None and (spec.files or kind.model_format == "onnx"):
        load_labels(spec.labels, spec.classes)


def _find(request: ModelRequest, progress: Progress | None) -> tuple[str, ResolvedModel]:
    """The name of the runtime, and the file that is for it; see `find_model`."""
    name, kind = request.select_runtime()
    try:
        return name, resolve(
            _describe(request),
            kind.model_format,
            model_path=Path(request.model_path) if request.model_path else None,
            allow_download=request.allow_download,
            allow_untrained=request.allow_untrained,
            progress=progress,
        )
    except OSError as error:  # a name that no file can have, or a folder one may not look into
        raise ModelError(f"cannot look for the model: {error}") from error


def load_model(
    request: ModelRequest, progress: Progress | None = None, *, spare_slots: int = 0
) -> Model:
    """Find, check and load a model.

    Args:
        request: Which, and how to run it.
        progress: See `Progress`.
        spare_slots: Slots beyond those in use at once, for images that are made ready meanwhile.

    Raises:
        ModelError, RuntimeUnavailableError: As `find_model`.
        ModelLoadError: The file is not a model the runtime can run.
        LabelsError: The labels cannot be read or are not one for each class.
    """
    name, file = _find(request, progress)
    spec = file.spec
    image = ImageInput(spec.height, spec.width, spec.nv12_range, spec.mean, spec.scale)
    options = request.run_options()
    options = replace(options, slots=options.slots + spare_slots)
    runtime = open_runtime(file.path, image, name, options)
    try:
        labels = _labels(spec, runtime.info.classes)
    except LabelsError:
        runtime.close()
        raise
    if file.untrained:
        labels = tuple(f"{label} (untrained)" for label in labels)
    return Model(request, file, image, runtime, labels)


def _describe(request: ModelRequest) -> ModelSpec:
    """The catalog's entry, or the description of a file of the user's own."""
    catalog = Catalog.load(*([Path(request.catalog_file)] if request.catalog_file else []))
    entry = catalog[request.model_size]
    given: dict[str, Any] = {
        "mean": request.mean,
        "scale": request.scale,
        "labels": Path(request.labels_file) if request.labels_file else None,
        "nv12_range": None if request.nv12_range == "auto" else request.nv12_range,
    }
    given = {name: value for name, value in given.items() if value is not None}
    path = Path(request.model_path)
    catalogued = {source.filename for source in entry.files.values()}
    if not path.is_file() or path.name in catalogued:
        return replace(entry, **given)
    spec = spec_for_file(path, **given)
    if spec.labels is None and spec.classes == entry.classes:
        return replace(spec, labels=entry.labels)  # the same classes, trained anew
    return spec


def _labels(spec: ModelSpec, classes: int) -> tuple[str, ...]:
    if spec.labels is None:
        return tuple(f"class {class_id}" for class_id in range(classes))
    return load_labels(spec.labels, classes)
