"""What is fuzzed: each function of `TARGETS` takes any bytes and raises documented errors only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.errors import BagError
from efv2_ros.errors import Efv2Error
from efv2_ros.messages.images import IMAGE_TYPES, compressed_frame, hbm_frame, image_frame
from efv2_ros.messages.typestore import typestore
from efv2_ros.models.catalog import CatalogError, _read
from efv2_ros.models.labels import LabelsError, load_class_names
from efv2_ros.models.lock import Lock
from efv2_ros.models.modelfile import ModelCorruptError
from efv2_ros.replay.run import RunError, read_jsonl
from efv2_ros.vision import jpeg, png
from efv2_ros.vision.compressed import decode, read_header
from efv2_ros.vision.frame import FrameError
from efv2_ros.vision.nv12 import check

MAX_PIXELS = 1 << 16
"""Small pictures: most of the time is to be spent in the checks before decoding."""

SUFFIXES = (".txt", ".json", ".yaml")


class Target(NamedTuple):
    """A function that is fuzzed.

    Attributes:
        once: The function.
        error: The only exception that it may raise.
    """

    once: Callable[[bytes], object]
    error: type[Efv2Error]


@cache
def folder() -> Path:
    """A folder for the files of this process."""
    return Path(tempfile.mkdtemp(prefix="efv2_fuzz_"))


@cache
def bag() -> Path:
    """A bag without QoS in its storage file, as early versions of rosbag2 wrote them."""
    path = folder() / "bag"
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection("/image", IMAGE_TYPES["raw"].name, typestore=typestore())
    (path / "metadata.yaml").unlink()
    return path


@cache
def memory_file(path: Path) -> int:
    """Open a file in memory, many times faster than one on a disk, that `path` leads to."""
    number = os.memfd_create(path.name)
    path.symlink_to(f"/proc/self/fd/{number}")
    return number


def file_of(data: bytes, path: Path) -> Path:
    """A file with this content."""
    number = memory_file(path)
    os.ftruncate(number, 0)
    os.pwrite(number, data, 0)
    return path


def read_message(data: bytes) -> None:
    """The first byte chooses the type of the message."""
    views = (image_frame, compressed_frame, partial(hbm_frame, frame_id="", max_size=32))
    check(views[data[0] % 3 if data else 0](data[1:]))


def read_jpeg(data: bytes) -> None:
    jpeg.read_jpeg(np.frombuffer(jpeg.START + data, np.uint8), MAX_PIXELS)


def read_png(data: bytes) -> None:
    file = np.frombuffer(png.SIGNATURE + data, np.uint8)
    png.decodable(file, png.read_png(file, MAX_PIXELS).png)


def decode_file(data: bytes) -> None:
    file = np.frombuffer(data, np.uint8)
    decode(file, read_header(file, MAX_PIXELS))


def read_catalog(data: bytes) -> None:
    list(_read(file_of(data, folder() / "catalog.yaml")))


def read_labels(data: bytes) -> None:
    """The first byte chooses the format and the number of classes."""
    number = data[0] if data else 0
    name = f"labels{SUFFIXES[number % len(SUFFIXES)]}"
    load_class_names(file_of(data[1:], folder() / name), number // len(SUFFIXES))


def read_lock(data: bytes) -> None:
    Lock.read(file_of(data, folder() / "model.onnx.lock").with_suffix(""))


def read_bag(data: bytes) -> None:
    """A whole storage file beside any metadata.yaml."""
    file_of(data, bag() / "metadata.yaml")
    with Bag(bag()) as opened:
        opened.info()


def read_run(data: bytes) -> None:
    read_jsonl(file_of(data, folder() / "run.jsonl"))


TARGETS = {
    "cdr": Target(read_message, FrameError),
    "jpeg": Target(read_jpeg, FrameError),
    "png": Target(read_png, FrameError),
    "compressed": Target(decode_file, FrameError),
    "catalog": Target(read_catalog, CatalogError),
    "labels": Target(read_labels, LabelsError),
    "lock": Target(read_lock, ModelCorruptError),
    "bag": Target(read_bag, BagError),
    "run": Target(read_run, RunError),
}
