"""Find a model's file on this machine, or download it, and check it against its lock file.

A lock file, `<file>.lock` beside a downloaded model, records URL and checksum of the first
download. The publisher gives no checksums, so the first download is trusted because it came over
HTTPS. From then on, every load and every further download must match it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from efv2_ros.errors import Efv2Error
from efv2_ros.models.built import from_weights, untrained, untrained_size
from efv2_ros.models.catalog import Catalog, ModelSpec
from efv2_ros.models.inputs import expand_user
from efv2_ros.models.lock import Lock
from efv2_ros.models.modelfile import (
    MODEL_FORMATS,
    ModelCorruptError,
    ModelError,
    ModelFile,
    ModelFormat,
    Nv12Range,
    read_model_file,
)
from efv2_ros.resources import cache_dir

if TYPE_CHECKING:
    from efv2_ros.models.download import DownloadProgress

Origin = Literal[
    "model_path", "catalog", "EFV2_MODEL_DIR", "cache", "board", "weights", "download", "untrained"
]

BOARD_DIR = Path("/opt/hobot/model/x5/basic")
"""Folder of the models that RDK X5 system images contain."""

_log = logging.getLogger(__name__)


class ModelNotFoundError(ModelError):
    """A model file that is in none of the places. The message names them and the fix."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model file that was found and checked.

    Attributes:
        spec: Its description.
        path: The file.
        format: `bin` or `onnx`, judged by its content.
        sha256: SHA-256 digest in lower-case hexadecimal.
        size: Size in bytes.
        origin: The place it was found in, or how it was made.
        untrained: Whether its weights were never trained.
        nv12_range: Value range of the NV12 image it was compiled for; None if it does not say.
    """

    spec: ModelSpec
    path: Path
    format: ModelFormat
    sha256: str
    size: int
    origin: Origin
    untrained: bool
    nv12_range: Nv12Range | None


@dataclass(frozen=True)
class FileStatus:
    """Place and condition of one file of the catalog.

    Attributes:
        spec: The model.
        format: `bin` or `onnx`.
        path: The file; None if it is not on this machine.
        origin: The place it is in; None if it is not on this machine.
        size: Size in bytes; None if there is no good file.
        sha256: SHA-256 digest; None if there is no good file.
        locked: Whether there is a lock file to compare it with.
        problem: What is wrong with it, as a sentence; None if nothing is.
    """

    spec: ModelSpec
    format: ModelFormat
    path: Path | None
    origin: Origin | None
    size: int | None
    sha256: str | None
    locked: bool
    problem: str | None


def resolve(
    spec: ModelSpec,
    format: ModelFormat,
    *,
    model_path: Path | None = None,
    allow_download: bool = False,
    allow_untrained: bool = False,
    on_progress: DownloadProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ResolvedModel:
    """Find a model's file and check it.

    The first of: `model_path`; the folder of the catalog that names the file without a URL;
    `$EFV2_MODEL_DIR`; the user cache; the board's own models; the network of the catalog's
    weights, which is built; a download; the untrained network. A file that is there but damaged
    is an error, not a reason to look further, and so is a `model_path` without the file.

    Args:
        spec: The model.
        format: Which of its files.
        model_path: A model file, or a folder that holds the catalog's file.
        allow_download: Fetch the file into the user cache if it is in none of the places.
        allow_untrained: Build a network with seeded random weights if there is no trained model
            (EfficientFormerV2 as ONNX only).
        on_progress: See `download`.
        should_stop: See `download`.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelCorruptError: The file differs from its lock file.
        ModelFormatError: The file is not a model, or of another format.
        DownloadError: The file could not be fetched, and nothing else is allowed.
        DownloadStoppedError: `should_stop` returned True.
    """
    found = find(
        spec,
        format,
        model_path=model_path,
        allow_download=allow_download,
        allow_untrained=allow_untrained,
    )
    if found is not None:
        return found
    if _has_weights(spec, format):
        return _resolved(spec, from_weights(spec), "weights")
    size = untrained_size(spec, format) if allow_untrained else None
    if allow_download and _url(spec, format) is not None:
        from efv2_ros.models.download import DownloadStoppedError

        try:
            return fetch(spec, format, on_progress=on_progress, should_stop=should_stop)
        except DownloadStoppedError:
            raise
        except ModelError as error:
            if size is None:
                raise
            _log.warning("%s", error)
    assert size is not None, "find() raises if neither is allowed"
    return _resolved(spec, untrained(spec, size), "untrained")


def find(
    spec: ModelSpec,
    format: ModelFormat,
    *,
    model_path: Path | None = None,
    allow_download: bool = False,
    allow_untrained: bool = False,
) -> ResolvedModel | None:
    """Find a model's file on this machine and check it; fetch and build nothing.

    Args:
        spec: The model.
        format: Which of its files.
        model_path: See `resolve`.
        allow_download: See `resolve`.
        allow_untrained: See `resolve`.

    Returns:
        The file, or None if it is not here and `resolve` would fetch or build it.

    Raises:
        ModelError: As `resolve`, except for what goes wrong in a download.
    """
    if model_path is None:
        _adopt(spec, format)
    found = _find(spec, format, model_path)
    if found is not None:
        path, origin = found
        return _resolved(spec, _checked(spec, path, format), origin)
    if model_path is None:
        if _has_weights(spec, format):
            return None
        if allow_download and _url(spec, format) is not None:
            return None
        if allow_untrained and untrained_size(spec, format) is not None:
            return None
    raise _not_found(spec, format, model_path)


def fetch(
    spec: ModelSpec,
    format: ModelFormat,
    *,
    update: bool = False,
    on_progress: DownloadProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ResolvedModel:
    """Download a model's file into the user cache.

    A good file in the cache is kept. A missing or damaged one is fetched, and must match the lock
    file if there is one.

    Args:
        spec: The model.
        format: Which of its files.
        update: Fetch the file in any case, and write a new lock file for it.
        on_progress: See `download`.
        should_stop: See `download`.

    Raises:
        DownloadError: The file could not be fetched or stored.
        DownloadStoppedError: `should_stop` returned True.
        ModelFormatError: The fetched file is not a model.
        ModelCorruptError: The fetched file does not match the lock file.
        ModelNotFoundError: The catalog has no URL for it.
    """
    url = _url(spec, format)
    if url is None:
        raise ModelNotFoundError(
            f"the catalog has no URL for the .{format} of {spec.name}: "
            "put the file into $EFV2_MODEL_DIR or set model_path"
        )
    from efv2_ros.models.download import download

    _adopt(spec, format)
    target = _cache_path(spec, format)
    origin: Origin = "cache"

    def needed() -> bool:
        return update or _problem(spec, target, format) is not None

    def accept(part: Path) -> None:
        nonlocal origin
        try:
            fetched = read_model_file(part, format)
        except ModelError as error:
            raise type(error)(f"{url} did not return a model: {error}") from error
        lock = None if update else _own_lock(spec, target, format)
        if lock is not None and lock.sha256 != fetched.sha256:
            raise ModelCorruptError(
                f"{url} now returns another file (SHA-256 {fetched.sha256[:12]}...) than the one "
                f"fetched on {lock.fetched_at[:10]} ({lock.sha256[:12]}...): if the change is "
                f"intended, accept it with `{_fetch_command(spec, format)} --update`"
            )
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        # The lock first: if the power fails before the file is in place, a fetch repairs it.
        Lock(url, fetched.size, fetched.sha256, now).write(target)
        origin = "download"

    if needed():  # else nothing is written: the cache may be read-only
        download(
            url, target, accept=accept, needed=needed, on_progress=on_progress,
            should_stop=should_stop,
        )  # fmt: skip
    return _resolved(spec, _checked(spec, target, format), origin)


def status(spec: ModelSpec, format: ModelFormat, *, model_path: Path | None = None) -> FileStatus:
    """Look up where a model's file is and whether it is good. Never raises or fetches.

    The network of a catalog's weights is built.

    Args:
        spec: The model.
        format: Which of its files.
        model_path: See `resolve`.
    """
    path: Path | None = None
    origin: Origin | None = None
    locked = False
    try:
        found = _find(spec, format, model_path)
        if found is None and model_path is None and _has_weights(spec, format):
            found = from_weights(spec).path, "weights"
        if found is None:
            return FileStatus(spec, format, None, None, None, None, locked=False, problem=None)
        path, origin = found
        locked = Lock.path_for(path).exists()
        file = _checked(spec, path, format)
    except (Efv2Error, OSError) as error:
        return FileStatus(spec, format, path, origin, None, None, locked, str(error))
    return FileStatus(spec, format, path, origin, file.size, file.sha256, locked, None)


def inventory(catalog: Catalog) -> list[FileStatus]:
    """Look up the status of every file in the catalog, in the catalog's order."""
    return [
        status(spec, format)
        for spec in catalog
        for format in MODEL_FORMATS
        if format in spec.files or _has_weights(spec, format)
    ]


def _resolved(spec: ModelSpec, file: ModelFile, origin: Origin) -> ResolvedModel:
    return ResolvedModel(
        spec=spec,
        path=file.path,
        format=file.format,
        sha256=file.sha256,
        size=file.size,
        origin=origin,
        untrained=file.untrained,
        nv12_range=file.nv12_range,
    )


# --- Places


def _cache_folder() -> Path:
    """Folder of downloads. Users may also put files into it by hand."""
    return cache_dir() / "models"


def _cache_path(spec: ModelSpec, format: ModelFormat) -> Path:
    """Path of a download. It depends on the whole URL: two may end in the same file name."""
    source = spec.files[format]
    if source.url is None:
        return _cache_folder() / source.filename
    key = hashlib.sha256(source.url.encode()).hexdigest()[:16]
    return _cache_folder() / key / source.filename


def _adopt(spec: ModelSpec, format: ModelFormat) -> None:
    """Move a download of version 0.1, which was stored under its file name alone, to its place.

    The URL in its lock file shows whether it belongs to this model. The model file is moved before
    the lock file, so another process may see a good file without a lock, but never a lock without
    its file. A file that cannot be moved is used where it is.
    """
    if _url(spec, format) is None:
        return
    old, new = _cache_folder() / spec.files[format].filename, _cache_path(spec, format)
    with contextlib.suppress(OSError, ModelCorruptError):
        lock = Lock.read(old)
        if lock is None or lock.url != _url(spec, format):
            return
        new.parent.mkdir(exist_ok=True)
        for source, target in ((old, new), (Lock.path_for(old), Lock.path_for(new))):
            if not target.exists():
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    source.rename(target)


def _places(spec: ModelSpec, format: ModelFormat) -> Iterator[tuple[Path, Origin]]:
    """List the paths at which the catalog's file may be, in the order of preference."""
    if format not in spec.files:
        return
    filename, beside = spec.files[format].filename, spec.files[format].folder
    if beside is not None:
        yield beside / filename, "catalog"
    folder = os.environ.get("EFV2_MODEL_DIR")
    if folder:
        yield expand_user(folder) / filename, "EFV2_MODEL_DIR"
    yield _cache_path(spec, format), "cache"
    by_hand = _cache_folder() / filename
    if _is_own(spec, by_hand, format):
        yield by_hand, "cache"
    if format == "bin":
        yield BOARD_DIR / filename, "board"


def _is_own(spec: ModelSpec, path: Path, format: ModelFormat) -> bool:
    """Whether the file has no lock, or one of a download from this model's URL."""
    lock = Lock.read(path)
    return lock is None or lock.url == _url(spec, format)


def _find(
    spec: ModelSpec, format: ModelFormat, model_path: Path | None
) -> tuple[Path, Origin] | None:
    if model_path is not None:
        model_path = expand_user(model_path)
        if model_path.is_dir() and format in spec.files:
            model_path /= spec.files[format].filename
        return (model_path, "model_path") if model_path.is_file() else None
    return next(((p, origin) for p, origin in _places(spec, format) if p.is_file()), None)


def _has_weights(spec: ModelSpec, format: ModelFormat) -> bool:
    """Whether the file can be built from weights that the catalog names."""
    return format == "onnx" and spec.weights is not None


def _url(spec: ModelSpec, format: ModelFormat) -> str | None:
    return spec.files[format].url if format in spec.files else None


def _fetch_command(spec: ModelSpec, format: ModelFormat) -> str:
    return f"efv2 models fetch {spec.size} --format {format}"


def _not_found(
    spec: ModelSpec, format: ModelFormat, model_path: Path | None
) -> ModelNotFoundError:
    source = spec.files.get(format)
    if model_path is not None:
        wanted = f" {source.filename}" if source and model_path.is_dir() else ""
        kind = "holds no file" if model_path.is_dir() else "is no file"
        message = f"model_path {model_path} {kind}{wanted}"
        others = "leave model_path empty and fetch it with"
    elif source is None:
        return ModelNotFoundError(f"the catalog lists no .{format} of {spec.name}: set model_path")
    else:
        folders = {origin: path.parent for path, origin in _places(spec, format)}
        folders["cache"] = _cache_folder()
        places = list(map(str, folders.values()))
        if not os.environ.get("EFV2_MODEL_DIR"):
            places.insert(0, "$EFV2_MODEL_DIR (not set)")
        message = f"{source.filename} is not in {', '.join(places)}"
        others = "fetch it with"
    if source is None or source.url is None:
        return ModelNotFoundError(f"{message}: put the file there")
    return ModelNotFoundError(f"{message}: {others} `{_fetch_command(spec, format)}`")


# --- Checks


def _checked(spec: ModelSpec, path: Path, format: ModelFormat) -> ModelFile:
    """Read the file and compare it with its lock, if there is one.

    Raises:
        ModelCorruptError: The file differs from its lock, the lock is of another URL, or it
            cannot be read.
        ModelError: See `read_model_file`.
    """
    lock = _own_lock(spec, path, format)
    try:
        return read_model_file(path, format, expected_sha256=lock.sha256 if lock else None)
    except ModelCorruptError as error:
        if format in spec.files and path == _cache_path(spec, format):
            fix = f"fetch it again with `{_fetch_command(spec, format)}`"
        else:
            fix = f"put the right file there, or delete {Lock.path_for(path)} if it is right"
        raise ModelCorruptError(f"{error}: {fix}") from error


def _own_lock(spec: ModelSpec, path: Path, format: ModelFormat) -> Lock | None:
    """Read the lock of a model file; None if there is none.

    Raises:
        ModelCorruptError: The lock cannot be read, or the file has the name that the catalog
            gives and was downloaded from another URL.
    """
    lock, source = Lock.read(path), spec.files.get(format)
    if lock is None or source is None or source.url is None or path.name != source.filename:
        return lock
    if lock.url != source.url:
        raise ModelCorruptError(
            f"{path} was fetched from {lock.url}, and {spec.name} is at {source.url}: put the "
            f"right file there, or delete {Lock.path_for(path)} if it is right"
        )
    return lock


def _problem(spec: ModelSpec, path: Path, format: ModelFormat) -> str | None:
    if not path.is_file():
        return "there is no such file"
    try:
        _checked(spec, path, format)
    except ModelError as error:
        return str(error)
    return None
