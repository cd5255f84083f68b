"""Finder and reader of photos in files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.pictures.dimensions import declared_size
from efv2_ros.vision.compressed import MAX_PIXELS, decode, is_jpeg_or_png, read_header
from efv2_ros.vision.fileheader import require_size
from efv2_ros.vision.frame import Frame, FrameError, Header

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Suffixes, in lower case, of the files in a folder that are taken for photos."""

_PIXEL_BYTES = 8
"""Bytes of a file for each pixel, at most: four samples of 16 bits."""

_FILE_BYTES = 64 << 20
"""Bytes of a file beside its pixels, at most: metadata, and the videos that phones append."""


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """List the given files, and the photos in the given folders, sorted by name.

    Raises:
        FrameError: A path does not exist, or a folder has no photo.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise FrameError("data", f"there is no file {path}")
            files.append(path)
            continue
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
        if not found:
            raise FrameError("data", f"there are no photos in {path}")
        files += found
    return files


def read_photo(path: Path | str, max_pixels: int = MAX_PIXELS) -> Frame:
    """Decode a photo to a `bgr8` frame and turn it upright as its EXIF orientation says.

    Args:
        path: A JPEG, PNG, BMP, PNM, TIFF or WebP file.
        max_pixels: Largest size that is decoded, in pixels.

    Raises:
        FrameError: The file cannot be read, is cut off, declares more than `max_pixels`, or
            OpenCV cannot decode it.
    """
    path = Path(path)
    contents = read_file(path, max_pixels)
    is_checked = is_jpeg_or_png(contents)
    try:
        if is_checked:
            image = decode(contents, read_header(contents, max_pixels))
        else:
            require_size(*declared_size(contents.data), max_pixels)
            image = _decode_other(contents)
    except FrameError as error:
        no_image = error.fault == "decode" and not is_checked
        subject = f"{path} is not an image OpenCV can decode" if no_image else path
        raise FrameError(error.fault, f"{subject}: {error}") from error
    return Frame.from_bgr(image, Header(frame_id=path.name))


def read_file(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    """Read a photo's file, uint8, 1-D.

    Raises:
        FrameError: It cannot be read, or is larger than an image of `max_pixels` can be.
    """
    try:
        if path.stat().st_size > _FILE_BYTES + _PIXEL_BYTES * max_pixels:
            raise FrameError("size", f"{path} is larger than an image of {max_pixels} pixels")
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise FrameError("data", f"{path} cannot be read: {error.strerror}") from error


def _decode_other(contents: NDArray[np.uint8]) -> NDArray[np.uint8]:
    try:
        image: NDArray[Any] | None = cv2.imdecode(contents, cv2.IMREAD_COLOR)
    except cv2.error:  # a size beyond its limits
        image = None
    if image is None:
        raise FrameError("decode", "its data are damaged")
    return image
