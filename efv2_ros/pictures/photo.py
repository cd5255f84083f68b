"""Image files as frames."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from efv2_ros.pictures.annotate import bgr_frame
from efv2_ros.vision.compressed import is_jpeg_or_png, read_header
from efv2_ros.vision.frame import Frame, FrameError, Header

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Suffixes, in lower case, by which photos are told from the other files of a folder."""


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """The files named, and of folders the photos in them, by name.

    Raises:
        FrameError: A path does not exist, or a folder holds no photo.
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


def read_photo(path: Path) -> Frame:
    """Decode a photo, upright, as a camera that publishes bgr8 would have taken it.

    Raises:
        FrameError: The file cannot be read, is cut off, or OpenCV cannot decode it.
    """
    try:
        contents = np.fromfile(path, np.uint8)
    except OSError as error:
        raise FrameError("data", f"{path} cannot be read: {error.strerror}") from error
    if is_jpeg_or_png(contents):
        read_header(contents)  # of a cut-off file, OpenCV fills the rest with grey
    try:
        image = cv2.imdecode(contents, cv2.IMREAD_COLOR) if contents.size else None
    except cv2.error:  # a size beyond its limits
        image = None
    if image is None:
        raise FrameError("decode", f"{path} is not an image OpenCV can decode")
    return bgr_frame(Header(frame_id=path.name), image.view(np.uint8))
