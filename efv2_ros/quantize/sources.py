"""Where images come from: a folder of photos, a bag, or float arrays that were made before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.bags.bag import Bag, Unreadable
from efv2_ros.evaluation.dataset import image_names
from efv2_ros.evaluation.spread import shares, spread
from efv2_ros.pictures.photo import read_photo
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.toolchain.environment import Stopped
from efv2_ros.vision.compressed import MAX_PIXELS, read_header
from efv2_ros.vision.frame import Frame, FrameError
from efv2_ros.vision.pixels import COMPRESSED

FLOAT_SUFFIXES = frozenset({".npy", ".rgb", ".rgbchw", ".raw"})
"""Suffixes of files with a float32 array: NumPy's, and bare numbers in C order."""

_BAG_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")


class Photo(NamedTuple):
    """One image of a source, decoded.

    Attributes:
        name: Its path in the folder, or its number and stamp in the bag.
        group: The folder directly below the source that it is in; empty without one.
        frame: The image.
        size: Width and height in pixels.
    """

    name: str
    group: str
    frame: Frame
    size: tuple[int, int]


class Split(NamedTuple):
    """Places of a source's images: those to calibrate with, and others to evaluate with."""

    calibration: tuple[int, ...]
    held_out: tuple[int, ...]


class PhotoFolder:
    """A folder of photos, at any depth.

    Args:
        path: The folder.

    Attributes:
        path: As given.
        names: Paths of the images relative to it, sorted.

    Raises:
        QuantizeError: It holds no photo.
        EvaluationError: It cannot be read.
    """

    kind = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = image_names(path)
        if not self.names:
            raise QuantizeError(f"there are no images in {path}")

    def __len__(self) -> int:
        return len(self.names)

    def group(self, place: int) -> str:
        """Name of the folder directly below the source that an image is in."""
        first, _, rest = self.names[place].partition("/")
        return first if rest else ""

    def split(self, calibration: int, held_out: int, seed: int) -> Split:
        """Choose images at random, as many of each group as possible."""
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        chosen = _of_each_group(order, self.group, calibration)
        taken = set(chosen)
        rest = [place for place in order if place not in taken]
        return Split(tuple(chosen), tuple(_of_each_group(rest, self.group, held_out)))

    def read(
        self, places: Sequence[int], on_left_out: Callable[[str], None],
        should_stop: Callable[[], bool], max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[int, Photo]]:  # fmt: skip
        """Read images, in the order of `places`; those that cannot be read are left out."""
        for place in places:
            if should_stop():
                raise Stopped
            try:
                frame = read_photo(self.path / self.names[place], max_pixels)
            except FrameError as error:
                on_left_out(str(error))
                continue
            size = (frame.width, frame.height)
            yield place, Photo(self.names[place], self.group(place), frame, size)


class BagImages:
    """The images of a topic of a bag.

    Args:
        path: The bag.
        topic: Name of the topic; may be empty if only one carries images.

    Raises:
        BagError: There is no such bag or topic.
    """

    kind = "bag"

    def __init__(self, path: Path, topic: str = "") -> None:
        self.path = path
        with Bag(path) as bag:
            self.topic = bag.image_topic(topic)

    def __len__(self) -> int:
        return self.topic.count

    def split(self, calibration: int, held_out: int, seed: int) -> Split:
        """Choose images at even distances in time; the seed changes nothing."""
        places = spread(min(calibration + held_out, len(self)), len(self))
        chosen = {places[each] for each in spread(min(calibration, len(places)), len(places))}
        rest = [each for each in places if each not in chosen]
        return Split(tuple(sorted(chosen)), tuple(rest))

    def read(
        self, places: Sequence[int], on_left_out: Callable[[str], None],
        should_stop: Callable[[], bool], max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[int, Photo]]:  # fmt: skip
        """Read images in the order of the bag; those that cannot be read are left out."""
        wanted, last = set(places), max(places, default=-1)
        with Bag(self.path) as bag:
            for place, image in enumerate(bag.images(self.topic, should_stop=should_stop)):
                if place in wanted:
                    if isinstance(image, Unreadable):
                        on_left_out(f"image {place} of {self.topic.name}: {image.error}")
                    else:
                        stamp = f"{image.header.sec}.{image.header.nanosec:09}"
                        name = f"image {place}, stamp {stamp}"
                        try:
                            size = _size(image, max_pixels)
                        except FrameError as error:
                            on_left_out(f"{name}: {error}")
                        else:
                            yield place, Photo(name, "", image, size)
                if place >= last:
                    break
        if should_stop():
            raise Stopped


def _size(frame: Frame, max_pixels: int) -> tuple[int, int]:
    if frame.encoding in COMPRESSED:
        header = read_header(frame.data, max_pixels)
        return header.width, header.height
    return frame.width, frame.height


class FloatFolder:
    """A folder of float32 RGB arrays that another program made, as the Model Zoo's tools do.

    Args:
        path: The folder.
        height: Height of each image in pixels.
        width: Width of each image in pixels.

    Raises:
        QuantizeError: It holds no such file.
    """

    kind = "arrays"

    def __init__(self, path: Path, height: int, width: int) -> None:
        self.path = path
        self._shape = (3, height, width)
        self.files = float_files(path)
        if not self.files:
            raise QuantizeError(f"there are neither images nor float32 arrays in {path}")

    def __len__(self) -> int:
        return len(self.files)

    def split(self, calibration: int, held_out: int, seed: int) -> Split:
        """Choose arrays at random; none is held out, since they are no images to classify."""
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        return Split(tuple(order[:calibration]), ())

    def read(self, place: int) -> NDArray[np.float32]:
        """Read an array, float32 of shape (1, 3, height, width).

        Raises:
            QuantizeError: It has another size or type, or cannot be read.
        """
        path = self.files[place]
        _, height, width = self._shape
        wanted = f"float32 of shape (1, 3, {height}, {width})"
        try:
            if path.suffix == ".npy":
                array = np.load(path, allow_pickle=False)
            else:
                array = np.fromfile(path, "<f4")
        except (OSError, ValueError, EOFError) as error:
            raise QuantizeError(f"{path} cannot be read as an array: {error}") from error
        if array.dtype != np.float32 or array.size != 3 * height * width:
            raise QuantizeError(f"{path} holds {array.dtype} {array.shape}, not {wanted}")
        if array.ndim > 1 and array.shape[-3:] != self._shape:
            raise QuantizeError(f"{path} has the shape {array.shape}, and is to be {wanted}")
        return np.ascontiguousarray(array.reshape(1, 3, height, width))


def float_files(path: Path) -> list[Path]:
    """List the files with float32 arrays in a folder."""
    return sorted(each for each in path.iterdir() if each.suffix.lower() in FLOAT_SUFFIXES)


Source = PhotoFolder | BagImages | FloatFolder


def open_source(path: Path, height: int, width: int, topic: str = "") -> Source:
    """Find out what a path holds: photos, a bag, or float32 arrays.

    Args:
        path: A folder, or a bag's file.
        height: Height of the model's input, for arrays.
        width: Width of the model's input, for arrays.
        topic: For a bag, the topic of its images.

    Raises:
        QuantizeError: It holds none of them.
        BagError: The bag cannot be read, or has no such topic.
    """
    try:
        if _is_bag(path):
            return BagImages(path, topic)
        if topic:
            raise QuantizeError(f"--topic is for a bag, and {path} is none")
        if not path.is_dir():
            kind = "is no folder and no bag" if path.exists() else "does not exist"
            raise QuantizeError(f"{path} {kind}: give a folder of images or a bag")
        return FloatFolder(path, height, width) if float_files(path) else PhotoFolder(path)
    except OSError as error:
        raise QuantizeError(f"cannot look into {path}: {error.strerror or error}") from error


def _is_bag(path: Path) -> bool:
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(
            each.name.endswith(_BAG_SUFFIXES) for each in path.iterdir()
        )
    return path.name.endswith(_BAG_SUFFIXES)


def _of_each_group(order: Sequence[int], group: Callable[[int], str], count: int) -> list[int]:
    """Take `count` places: the same number of each group, the first of `order` in each."""
    by_group: dict[str, list[int]] = {}
    for place in order:
        by_group.setdefault(group(place), []).append(place)
    if not by_group or not count:
        return []
    names = sorted(by_group)
    taken = shares([len(by_group[name]) for name in names], count)
    return [place for name, share in zip(names, taken, strict=True)
            for place in by_group[name][:share]]  # fmt: skip
