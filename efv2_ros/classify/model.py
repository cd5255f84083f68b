"""Find, check and load the model that a request asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efv2_ros.classify.options import ModelRequest
from efv2_ros.classify.pipeline import spare_slots
from efv2_ros.models.catalog import Catalog, ModelSpec, spec_for_file
from efv2_ros.models.inputs import expand_user
from efv2_ros.models.labels import LabelsError, load_labels
from efv2_ros.models.modelfile import ModelError
from efv2_ros.models.store import ResolvedModel, find, resolve
from efv2_ros.runtimes.base import ImageInput, Runtime, RuntimeKind, open_runtime

if TYPE_CHECKING:
    from efv2_ros.models.download import DownloadProgress


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model and its description, made by `load_model`.

    Use it in a `with` statement or call `close`.

    Attributes:
        request: The request it was loaded for.
        file: The model file, its origin and its catalog entry.
        image: Size and value range of the model's input.
        runtime: The runtime that holds the model and runs it.
        labels: The name of each class, in the order of the outputs. The names of an untrained
            network end in "(untrained)".
    """

    request: ModelRequest
    file: ResolvedModel
    image: ImageInput
    runtime: Runtime
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's name, with "(untrained)" if it has random weights."""
        return f"{self.file.spec.name} (untrained)" if self.file.untrained else self.file.spec.name

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory. No inference may be running."""
        self.runtime.close()


def find_model(
    request: ModelRequest | str,
    on_progress: DownloadProgress | None = None,
    *,
    should_stop: Callable[[], bool] | None = None,
) -> ResolvedModel:
    """Find the file a request means and check it against its lock file, without loading it.

    Args:
        request: See `load_model`.
        on_progress: See `load_model`.
        should_stop: See `load_model`.

    Raises:
        ModelError: The catalog has no such model or cannot be used, there is no such file, or
            the file is damaged.
        DownloadStoppedError: `should_stop` returned True.
        RuntimeUnavailableError: There is no such runtime, or none that works here.
    """
    return _find(_as_request(request), on_progress, should_stop)[1]


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
    name, kind, spec, path = _look_up(request)
    if request.runtime == name:  # `auto` takes only what works
        kind.probe()
    with _named_errors():
        find(
            spec,
            kind.model_format,
            model_path=path,
            allow_download=request.allow_download,
            allow_untrained=request.allow_untrained,
        )
    # The number of classes of a .bin that no catalog lists is unknown before it is loaded.
    if spec.labels is not None and (spec.files or kind.model_format == "onnx"):
        load_labels(spec.labels, spec.classes)


def with_absolute_paths(request: ModelRequest) -> ModelRequest:
    """Make a request mean the same files in processes that run in another folder.

    Raises:
        ModelError: A path begins with the home folder of nobody.
    """

    def absolute(path: str) -> str:
        return str(expand_user(path).absolute()) if path else ""

    return replace(
        request,
        model_path=absolute(request.model_path),
        catalog_file=absolute(request.catalog_file),
        labels_file=absolute(request.labels_file),
    )


def _as_request(request: ModelRequest | str) -> ModelRequest:
    return ModelRequest(model_size=request) if isinstance(request, str) else request


def _find(
    request: ModelRequest,
    on_progress: DownloadProgress | None,
    should_stop: Callable[[], bool] | None,
) -> tuple[str, ResolvedModel]:
    """Find the runtime's name and the file for it; see `find_model`."""
    name, kind, spec, path = _look_up(request)
    with _named_errors():
        found = resolve(
            spec,
            kind.model_format,
            model_path=path,
            allow_download=request.allow_download,
            allow_untrained=request.allow_untrained,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    if request.nv12_range == "auto" and found.nv12_range is not None:
        found = replace(found, spec=replace(found.spec, nv12_range=found.nv12_range))
    return name, found


def _look_up(request: ModelRequest) -> tuple[str, RuntimeKind, ModelSpec, Path | None]:
    """Find the runtime by name and kind, the model's description, and the path that is given."""
    name, kind = request.select_runtime()
    with _named_errors():
        path = expand_user(request.model_path) if request.model_path else None
        return name, kind, _describe(request, path), path


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turn an OSError into a ModelError: a name that no file can have, a folder that is closed."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"cannot look for the model: {error}") from error


def load_model(
    request: ModelRequest | str,
    on_progress: DownloadProgress | None = None,
    *,
    should_stop: Callable[[], bool] | None = None,
    pipelined: bool = False,
) -> Model:
    """Find, check and load a model.

    Args:
        request: The model and how to run it. A str is a model size, such as "s0".
        on_progress: Called with the bytes received and expected while the model is downloaded.
        should_stop: Polled several times a second while the model is downloaded; the download
            ends once it returns True.
        pipelined: Reserve slots for a `Pipeline`, which prepares images while others are in
            inference.

    Raises:
        ModelError, RuntimeUnavailableError: As `find_model`.
        ModelLoadError: The runtime cannot run the file.
        LabelsError: The labels cannot be read, or their number is not that of the classes.
    """
    request = _as_request(request)
    name, file = _find(request, on_progress, should_stop)
    spec = file.spec
    image = ImageInput(spec.height, spec.width, spec.nv12_range, spec.mean, spec.scale)
    options = request.run_options()
    if pipelined:
        options = replace(options, slots=options.slots + spare_slots(options.slots))
    runtime = open_runtime(file.path, image, name, options)
    try:
        labels = _labels(spec, runtime.info.classes)
    except LabelsError:
        runtime.close()
        raise
    if file.untrained:
        labels = tuple(f"{label} (untrained)" for label in labels)
    return Model(request, file, image, runtime, labels)


def _describe(request: ModelRequest, path: Path | None) -> ModelSpec:
    """Take the description from the catalog, or from the file if no catalog lists it."""
    catalog = Catalog.load(*([expand_user(request.catalog_file)] if request.catalog_file else []))
    entry = catalog[request.model_size]
    given: dict[str, Any] = {
        "mean": request.mean,
        "scale": request.scale,
        "labels": expand_user(request.labels_file) if request.labels_file else None,
        "nv12_range": None if request.nv12_range == "auto" else request.nv12_range,
    }
    given = {name: value for name, value in given.items() if value is not None}
    catalogued = {source.filename for source in entry.files.values()}
    if path is None or path.name in catalogued or not path.is_file():
        return replace(entry, **given)
    spec = spec_for_file(path, **given)
    if spec.labels is None and spec.classes == entry.classes:
        return replace(spec, labels=entry.labels)  # most likely retrained on the same classes
    return spec


def _labels(spec: ModelSpec, classes: int) -> tuple[str, ...]:
    if spec.labels is None:
        return tuple(f"class {class_id}" for class_id in range(classes))
    return load_labels(spec.labels, classes)
