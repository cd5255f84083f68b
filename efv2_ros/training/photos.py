"""The photos of a data set, their classes, and which of them are for training."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from efv2_ros.evaluation.dataset import image_names
from efv2_ros.pictures.photo import SUFFIXES
from efv2_ros.training.errors import TrainingError

TRAINING, VALIDATION = "train", "val"
"""Names of the folders of a data set that is split already, and of the parts in a list."""

_FEW_PHOTOS = 20
_IMBALANCE = 10


class LabelledPhoto(NamedTuple):
    """A photo and the index of its class."""

    path: Path
    class_id: int


@dataclass(frozen=True)
class Photos:
    """A data set.

    Attributes:
        classes: Names of the classes, sorted.
        training: Photos to train with.
        validation: Photos to measure with; none of them is trained with.
        remarks: What is remarkable about them, as sentences.
    """

    classes: tuple[str, ...]
    training: tuple[LabelledPhoto, ...]
    validation: tuple[LabelledPhoto, ...]
    remarks: tuple[str, ...] = ()


def find_photos(source: Path, *, share: float = 0.1, seed: int = 0) -> Photos:
    """Find the photos of a data set.

    Args:
        source: One of: a folder with `train` and `val`, which hold a folder for each class; a
            folder with a folder for each class; a text file with a line `PATH,CLASS` or
            `PATH,CLASS,train|val` for each photo, paths relative to the file.
        share: Share of each class's photos that is set apart for validation, at least one, where
            the source does not say which; above 0 and below 1.
        seed: Which photos these are.

    Raises:
        TrainingError: It cannot be read, holds fewer than two classes, a class has no photo to
            train with, or validation has a class that training has not.
        EvaluationError: A folder cannot be read.
    """
    try:
        if source.is_file():
            parts = _read_list(source)
        elif (source / TRAINING).is_dir():
            parts = {TRAINING: _read_folder(source / TRAINING)}
            if (source / VALIDATION).is_dir():
                parts[VALIDATION] = _read_folder(source / VALIDATION)
        elif source.is_dir():
            parts = {TRAINING: _read_folder(source)}
        else:
            raise TrainingError(f"there is no folder or file {source}")
    except OSError as error:
        raise TrainingError(f"cannot read {error.filename}: {error.strerror or error}") from error
    training = parts[TRAINING]
    _check_classes(source, training)
    validation = parts.get(VALIDATION)
    if validation is None:
        training, validation = _split(training, share, seed)
    unknown = sorted(set(validation) - set(training))
    if unknown:
        raise TrainingError(
            f"{source} has photos of {_some(unknown)} to validate with, and none to train with"
        )
    names = tuple(sorted(training))
    return Photos(
        names,
        _labelled(names, training),
        _labelled(names, validation),
        tuple(_remarks(training, validation)),
    )


def _read_folder(folder: Path) -> dict[str, list[Path]]:
    """The photos of each folder below `folder`, at any depth."""
    found: dict[str, list[Path]] = {
        each.name: []
        for each in sorted(folder.iterdir())
        if each.is_dir() and not each.name.startswith(".")
    }
    for name in image_names(folder):
        first, _, rest = name.partition("/")
        if rest:
            found[first].append(folder / name)
    return found


def _read_list(path: Path) -> dict[str, dict[str, list[Path]]]:
    """The photos of each class of each part; without parts, all are for training."""
    found: dict[str, dict[str, list[Path]]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not a list of photos: it is no UTF-8 text") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [each.strip() for each in line.replace("\t", ",").split(",")]
        photo = path.parent / fields[0]
        if len(fields) not in (2, 3) or not all(fields):
            raise TrainingError(f"{path}:{number} is not PATH,CLASS or PATH,CLASS,train|val")
        part = fields[2] if len(fields) == 3 else TRAINING
        if part not in (TRAINING, VALIDATION):
            raise TrainingError(f"{path}:{number} says {part}, which is neither train nor val")
        if photo.suffix.lower() not in SUFFIXES or not photo.is_file():
            raise TrainingError(f"{path}:{number} names {photo}, which is no photo")
        found.setdefault(part, {}).setdefault(fields[1], []).append(photo)
    if TRAINING not in found:
        raise TrainingError(f"{path} lists no photo to train with")
    return found


def _check_classes(source: Path, training: Mapping[str, Sequence[Path]]) -> None:
    if not training or not any(training.values()):
        raise TrainingError(
            f"{source} has no folders with photos: training needs a folder for each class"
        )
    if empty := sorted(name for name, photos in training.items() if not photos):
        raise TrainingError(
            f"there are no photos of {_some(empty)} in {source}: add some, or remove the folder"
        )
    if len(training) < 2:
        raise TrainingError(
            f"{source} has one class only, {next(iter(training))}: a classifier needs at least "
            "two; add a folder of photos that show nothing of the kind"
        )


def _split(
    photos: Mapping[str, Sequence[Path]], share: float, seed: int
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Set photos of each class apart for validation; a class with one photo keeps it."""
    training: dict[str, list[Path]] = {}
    validation: dict[str, list[Path]] = {}
    for name in sorted(photos):
        order = list(photos[name])
        random.Random(f"{seed} {name}").shuffle(order)
        count = min(max(round(share * len(order)), 1), len(order) - 1)
        training[name], validation[name] = sorted(order[count:]), sorted(order[:count])
    return training, validation


def _labelled(
    classes: Sequence[str], photos: Mapping[str, Sequence[Path]]
) -> tuple[LabelledPhoto, ...]:
    return tuple(
        LabelledPhoto(path, class_id)
        for class_id, name in enumerate(classes)
        for path in photos.get(name, ())
    )


def _remarks(
    training: Mapping[str, Sequence[Path]], validation: Mapping[str, Sequence[Path]]
) -> list[str]:
    counts = Counter({name: len(photos) for name, photos in training.items()})
    (most, many), (least, few) = counts.most_common(1)[0], counts.most_common()[-1]
    remarks = []
    if few < _FEW_PHOTOS:
        names = sorted(name for name, count in counts.items() if count < _FEW_PHOTOS)
        remarks.append(
            f"fewer than {_FEW_PHOTOS} photos of {_some(names)} to train with: more photos, from "
            "other places and in other light, are what helps most"
        )
    if many > _IMBALANCE * few:
        remarks.append(
            f"{many} photos of {most}, but {few} of {least}: the network will prefer {most}; "
            "--balance shows it as many of each"
        )
    if unseen := sorted(name for name in training if not validation.get(name)):
        remarks.append(f"no photos of {_some(unseen)} to validate with: its accuracy is unknown")
    return remarks


def _some(names: Sequence[str]) -> str:
    """Name the first of a list, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
