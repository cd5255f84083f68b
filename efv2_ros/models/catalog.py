"""Descriptions of models, read from the shipped catalog and from the user's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from efv2_ros.models.fields import Fields, Rgb, key_text, read_yaml, rgb_problem
from efv2_ros.models.inputs import expand_user, shorten, url_problem
from efv2_ros.models.modelfile import (
    MODEL_FORMATS,
    ModelError,
    ModelFormat,
    Nv12Range,
    read_model_file,
)
from efv2_ros.resources import share_path

# ImageNet's mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225), with which
# the networks of timm and the Model Zoo are trained, for pixels of 0..255: 255 * mean and
# 1 / (255 * deviation).
IMAGENET_MEAN: Rgb = (123.675, 116.28, 103.53)
IMAGENET_SCALE: Rgb = (0.01712475, 0.017507, 0.01742919)

_DEFAULT_CROP_PCT = 0.95
_MAX_SIDE = 8192  # pixels; no classifier's input is near it
_MAX_CLASSES = 1_000_000


class CatalogError(ModelError):
    """A catalog that cannot be used, or a model that the catalog does not list."""


@dataclass(frozen=True)
class ModelFileSource:
    """Name and URL of one file of a model.

    Attributes:
        url: Where to download it; None for a file that the user provides.
        filename: Its name in the folders that are searched.
        folder: Folder of the catalog that names the file without a URL; it is searched first.
    """

    url: str | None
    filename: str
    folder: Path | None = None


@dataclass(frozen=True)
class ModelSpec:
    """Description of a model. It holds for all files of the model.

    Attributes:
        name: Unique in a catalog, for example `efficientformerv2_s0`.
        size: Short name, for example `s0`; the same as `name` if the catalog gives none.
        height: Input height in pixels, even.
        width: Input width in pixels, even.
        classes: Number of outputs.
        mean: Mean of R, G and B in 0..255. A float model gets `(rgb - mean) * scale`; a `.bin`
            has this compiled in.
        scale: Factors for R, G and B after the mean is subtracted; not zero.
        nv12_range: Value range of the NV12 image that the model takes: `full` is 0..255,
            `limited` is 16..235 for luma and 16..240 for chroma.
        crop_pct: Share of the image's shorter side that the centre crop keeps, in (0, 1].
        labels: File of class names; None if the classes have no names.
        weights: File of an EfficientFormerV2's weights, from which its ONNX file is built; None
            without one.
        files: The model's file in each format that it is published in.
        published: The publisher's figures by name, with the unit in the name; may be empty.

    Raises:
        CatalogError: `mean` or `scale` is not three finite numbers, or `scale` is zero.
    """

    name: str
    size: str
    height: int
    width: int
    classes: int
    mean: Rgb = IMAGENET_MEAN
    scale: Rgb = IMAGENET_SCALE
    nv12_range: Nv12Range = "full"
    crop_pct: float = _DEFAULT_CROP_PCT
    labels: Path | None = None
    weights: Path | None = None
    files: Mapping[ModelFormat, ModelFileSource] = field(default_factory=dict, hash=False)
    published: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            if problem := rgb_problem(name, values):
                raise CatalogError(f"the {name} of {self.name} {problem}")


class Catalog:
    """Models by name or size. Iterating gives the models in the order of the catalog files."""

    def __init__(self, models: Mapping[str, ModelSpec]) -> None:
        self._models = dict(models)

    @classmethod
    def load(cls, *user_files: Path) -> Catalog:
        """Read the shipped catalog, then the user's.

        An entry replaces an earlier one of the same name or size.

        Args:
            *user_files: Catalogs of the same form as the shipped `models/catalog.yaml`. Paths of
                labels files are relative to the catalog's folder.

        Raises:
            CatalogError: A file cannot be read or an entry is wrong. The message names the file,
                the entry and the field.
        """
        models: dict[str, ModelSpec] = {}
        for path in (share_path("models", "catalog.yaml"), *user_files):
            for spec in _read(path):
                models = {n: s for n, s in models.items() if s.size != spec.size}
                models[spec.name] = spec
        return cls(models)

    def __getitem__(self, name_or_size: str) -> ModelSpec:
        """Look up a model by name or size.

        Raises:
            CatalogError: There is none.
        """
        if name_or_size in self._models:
            return self._models[name_or_size]
        for spec in self:
            if spec.size == name_or_size:
                return spec
        known = ", ".join(spec.size for spec in self)
        raise CatalogError(f"the catalog has no model {shorten(name_or_size)}, only {known}")

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)


def spec_for_file(
    path: Path,
    *,
    mean: Rgb = IMAGENET_MEAN,
    scale: Rgb = IMAGENET_SCALE,
    labels: Path | None = None,
    classes: int | None = None,
    height: int | None = None,
    width: int | None = None,
    nv12_range: Nv12Range = "full",
    crop_pct: float = _DEFAULT_CROP_PCT,
) -> ModelSpec:
    """Describe a classifier that no catalog lists.

    Input size and number of classes are read from the file. A `.bin` that does not state them is
    taken for 224x224 pixels and 1000 classes.

    Args:
        path: A `.bin` for the BPU, or an ONNX model with one float input `1x3xHxW` (RGB) and the
            logits as its first output, `1xC` or `1xCx1x1`.
        mean: See `ModelSpec`.
        scale: See `ModelSpec`.
        labels: See `ModelSpec`.
        classes: Number of classes, if the file does not state it.
        height: Input height in pixels, if the file does not state it.
        width: Input width in pixels, if the file does not state it.
        nv12_range: See `ModelSpec`.
        crop_pct: See `ModelSpec`.

    Raises:
        ModelError: The file does not exist, is damaged or is not a model.
        CatalogError: It is another kind of model, or it contradicts the arguments.
    """
    format: ModelFormat = "bin" if path.suffix.lower() == ".bin" else "onnx"
    file = read_model_file(path, format)
    if format == "onnx":
        shape = file.input_shapes[0] if len(file.input_shapes) == 1 else ()
        if len(shape) != 4 or shape[0] not in (1, None) or shape[1] != 3:
            found = "; ".join(map(_shape_text, file.input_shapes)) or "none"
            raise CatalogError(f"{path} must have one input of shape 1x3xHxW, and has {found}")
        stated = (shape[2], shape[3], _class_count(file.output_shapes))
    else:
        shape = file.input_shapes[0] if len(file.input_shapes) == 1 else ()
        sides = shape[1:3] if len(shape) == 4 and shape[3] == 3 else (None, None)
        stated = (
            sides[0] or height or 224,
            sides[1] or width or 224,
            _class_count(file.output_shapes) or classes or 1000,
        )
    height = _agreed(path, "height", stated[0], height)
    width = _agreed(path, "width", stated[1], width)
    classes = _agreed(path, "classes", stated[2], classes)
    fields: dict[str, Any] = {
        "input": {"height": height, "width": width},
        "classes": classes,
        "mean": list(mean),
        "scale": list(scale),
        "nv12_range": nv12_range,
        "crop_pct": crop_pct,
        "labels": None if labels is None else str(labels.absolute()),
    }
    return _spec(Fields(fields, str(path), CatalogError, "a catalog"), path.stem, path.parent)


def _class_count(output_shapes: tuple[tuple[int | None, ...], ...]) -> int | None:
    """Read C from `1xC` or `1xCx1x1`; None if the graph does not state it."""
    sizes = output_shapes[0][1:] if output_shapes else ()
    if any(size is None for size in sizes):
        return None
    return math.prod(cast("tuple[int, ...]", sizes)) if sizes else None


def _agreed(path: Path, what: str, stated: int | None, given: int | None) -> int:
    if stated is None and given is None:
        raise CatalogError(f"{path} does not state its {what}: give it")
    if stated is not None and given is not None and stated != given:
        raise CatalogError(f"{path} states that its {what} is {stated}, not {given}")
    return cast("int", stated if stated is not None else given)


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _read(path: Path) -> Iterator[ModelSpec]:
    document = read_yaml(path, "catalog", CatalogError)
    top = Fields(document, f"catalog {path}", CatalogError, "a catalog")
    models = top.take("models", dict)
    top.finish()
    sizes: set[str] = set()
    for name, entry in models.items():
        shown = key_text(name)
        where = f"catalog {path}, models.{shown}"
        spec = _spec(Fields(entry, where, CatalogError, "a catalog"), shown, path.parent)
        if spec.size in sizes:
            raise CatalogError(f"{where}.size: another entry is {shorten(spec.size)} too")
        sizes.add(spec.size)
        yield spec


def _spec(fields: Fields, name: str, folder: Path) -> ModelSpec:
    image = fields.inner("input")
    spec = ModelSpec(
        name=name,
        size=fields.take("size", str, default=name),
        height=image.whole_number("height", _MAX_SIDE, even=True),
        width=image.whole_number("width", _MAX_SIDE, even=True),
        classes=fields.whole_number("classes", _MAX_CLASSES),
        mean=fields.rgb("mean", IMAGENET_MEAN),
        scale=fields.rgb("scale", IMAGENET_SCALE),
        nv12_range=_nv12_range(fields),
        crop_pct=_crop_pct(fields),
        labels=_named_file(fields, "labels", folder),
        weights=_named_file(fields, "weights", folder),
        files=_files(fields, folder),
        published=_published(fields),
    )
    image.finish()
    fields.finish()
    return spec


def _nv12_range(fields: Fields) -> Nv12Range:
    value = fields.take("nv12_range", str, default="full")
    if value not in ("full", "limited"):
        raise fields.error("nv12_range", f"must be full or limited, not {shorten(value)}")
    return cast("Nv12Range", value)


def _crop_pct(fields: Fields) -> float:
    value = fields.number("crop_pct", _DEFAULT_CROP_PCT)
    if not 0 < value <= 1:
        raise fields.error("crop_pct", f"must be above 0 and at most 1, not {value}")
    return value


def _named_file(fields: Fields, key: str, folder: Path) -> Path | None:
    name = fields.take(key, str, default=None)
    if name is None:
        return None
    try:
        path = folder / expand_user(name)
        is_file = path.is_file()
    except (ModelError, OSError) as error:
        raise fields.error(key, str(error)) from error
    if not is_file:
        raise fields.error(key, f"there is no file {path}")
    return path


def _files(fields: Fields, folder: Path) -> dict[ModelFormat, ModelFileSource]:
    sources = fields.inner("files", default={})
    files = {
        format: _source(sources, format, folder)
        for format in MODEL_FORMATS
        if format in sources.remaining
    }
    sources.finish()
    return files


def _source(sources: Fields, format: ModelFormat, folder: Path) -> ModelFileSource:
    """Read a URL that ends in the file's name, or the name alone if the user provides the file."""
    text = sources.take(format, str)
    url = text if "://" in text else None
    if url and (problem := url_problem(url)):
        raise sources.error(format, f"is not a valid URL, {shorten(text)}: {problem}")
    filename = unquote(PurePosixPath(urlsplit(text).path).name) if url else text
    if not filename or filename.startswith(".") or "/" in filename or not filename.isprintable():
        raise sources.error(format, f"must be a URL or a plain file name, not {shorten(text)}")
    return ModelFileSource(url, filename, None if url else folder)


def _published(fields: Fields) -> dict[str, float]:
    figures = fields.inner("published", default={})
    return {key_text(name): figures.number(name) for name in list(figures.remaining)}
