"""Files for annotated photos: which names they get, and writing them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from efv2_ros.classify.classifier import Classified
from efv2_ros.errors import Efv2Error
from efv2_ros.files import open_atomic_binary
from efv2_ros.vision.frame import Frame


class AnnotateError(Efv2Error):
    """Annotated photos that must not be written, or cannot be."""


def annotated_paths(photos: Sequence[Path], target: Path) -> list[Path]:
    """Choose where each annotated photo is written.

    A single photo goes to `target`, several go into the folder `target` as `STEM.jpg`. Where two
    stems are the same, as many folders' names as tell them apart come before: `left_1.jpg` and
    `right_1.jpg`; or, within a folder, the suffixes: `1_png.jpg`.

    Args:
        photos: The photos; a photo may be there twice.
        target: A file or folder, which need not exist; made if it is a folder.

    Returns:
        A path for each photo.

    Raises:
        AnnotateError: A photo would be overwritten.
    """
    is_file = len(photos) == 1 and not target.is_dir()
    names = [target.name] if is_file else [f"{each}.jpg" for each in _distinct_names(photos)]
    paths = [(target.parent if is_file else target) / name for name in names]
    originals = {_identity(each): each for each in photos}
    for path in paths:
        if path.exists() and (photo := originals.get(_identity(path))) is not None:
            raise AnnotateError(
                f"--annotate {target} would overwrite the photo {photo}: name another "
                f"{'file' if is_file else 'folder'}"
            )
    if not is_file:
        target.mkdir(parents=True, exist_ok=True)
    return paths


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _distinct_names(photos: Sequence[Path]) -> list[str]:
    """Name each photo, without a suffix; the same photo has the same name."""
    files = [Path(os.path.abspath(each)) for each in photos]  # noqa: PTH100 - `..` must go
    by_stem: dict[str, list[Path]] = {}
    for file in dict.fromkeys(files):
        by_stem.setdefault(file.stem.casefold(), []).append(file)
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file, name in itertools.chain.from_iterable(map(_names_of_a_stem, by_stem.values())):
        unique, number = name, 1
        while unique.casefold() in taken:  # `left/1` and a photo that is called `left_1`
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.casefold())
        names[file] = unique
    return [names[file] for file in files]


def _names_of_a_stem(files: Sequence[Path]) -> Iterable[tuple[Path, str]]:
    """Name files of one stem by it, and by as little else as tells them apart."""
    for depth in range(max(len(file.parents) for file in files)):
        for has_suffix in (False, True):
            names = ["_".join(_name_parts(file, depth, has_suffix=has_suffix)) for file in files]
            if len({name.casefold() for name in names}) == len(files):
                return zip(files, names, strict=True)
    return zip(files, names, strict=True)


def _name_parts(file: Path, depth: int, *, has_suffix: bool) -> Iterator[str]:
    """The names of `depth` folders, the stem, and the suffix without its dot."""
    folders = file.parts[1:-1]
    yield from folders[max(0, len(folders) - depth) :]
    yield file.stem
    if has_suffix:
        yield file.suffix.lstrip(".")


def write_annotated(path: Path, frame: Frame, result: Classified) -> None:
    """Draw a photo's results on it and write it, in the format that the path's suffix names.

    Raises:
        AnnotateError: OpenCV writes no such format.
        FileWriteError: The file cannot be written.
    """
    import cv2

    from efv2_ros.pictures.annotate import annotate, to_bgr

    image = to_bgr(frame)
    annotate(image, result.lines())
    try:
        encoded, data = cv2.imencode(path.suffix, image)
    except cv2.error:  # the suffix names no format OpenCV writes
        encoded = False
    if not encoded:
        raise AnnotateError(f"cannot write {path}: name a .jpg or .png file, or a folder")
    with open_atomic_binary(path) as file:
        file.write(data.tobytes())
