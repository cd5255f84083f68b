"""Thumbnails: which images to show, reading them from a bag, and encoding them as JPEG."""

from __future__ import annotations

import base64
import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.bags.bag import Unreadable
from efv2_ros.pictures.annotate import to_bgr
from efv2_ros.replay.run import Run
from efv2_ros.report.segments import chosen, segments
from efv2_ros.report.series import series
from efv2_ros.vision.frame import Frame, FrameError, Header

MOST_PIXELS = 160
"""Length of a thumbnail's longer side, in pixels."""

_BUDGET = 120_000
"""Most bytes of all JPEGs of a page; as Base64 they take a third more."""

_QUALITIES = (70, 60, 50, 40, 30, 20)
"""JPEG qualities to try: the first that keeps to the budget is used, else the last."""


def wanted_thumbnails(run: Run) -> list[int]:
    """Return the indices in `run.frames` of the images that the report would show, ascending."""
    found = segments(series(run))
    return sorted(int(found.best[each]) for each in chosen(found))


def find_thumbnails(
    run: Run, wanted: Sequence[int], images: Iterable[Frame | Unreadable]
) -> dict[int, NDArray[np.uint8]]:
    """Find the wanted images among those that a run was made from.

    Images are matched by stamp. Of several images with the same stamp, the first in `images`
    matches the first in the run, and so on.

    Args:
        run: The run.
        wanted: Indices in `run.frames`.
        images: Images of the bag's topic in their order, as from `Bag.images`. They are read up
            to the last wanted one.

    Returns:
        BGR pictures by index, uint8 of shape (height, width, 3), at most `MOST_PIXELS` wide and
        high. Images that are missing or cannot be decoded are left out.
    """
    keys = image_keys(run)
    indices = {keys[index]: index for index in wanted}
    return {indices[key]: picture for key, picture in find_images(indices, images).items()}


class ImageKey(NamedTuple):
    """What tells an image from the others of its topic.

    Attributes:
        stamp: Its stamp, in nanoseconds.
        occurrence: How many images had this stamp up to this one.
    """

    stamp: int
    occurrence: int


def image_keys(run: Run) -> list[ImageKey]:
    """Return the key of each image of a run."""
    seen: Counter[int] = Counter()
    return [_key(frame.header, seen) for frame in run.frames]


def _key(header: Header, seen: Counter[int]) -> ImageKey:
    seen[header.nanoseconds] += 1
    return ImageKey(header.nanoseconds, seen[header.nanoseconds])


def find_images(
    wanted: Collection[ImageKey], images: Iterable[Frame | Unreadable]
) -> dict[ImageKey, NDArray[np.uint8]]:
    """Find images by their keys; see `find_thumbnails`."""
    pictures: dict[ImageKey, NDArray[np.uint8]] = {}
    seen: Counter[int] = Counter()
    missing = set(wanted)
    if missing:
        for image in images:
            key = _key(image.header, seen)
            if key in missing:
                missing.remove(key)
                if isinstance(image, Frame):
                    with contextlib.suppress(FrameError):
                        pictures[key] = _shrink(to_bgr(image))
            if not missing:
                break
    return pictures


def _shrink(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = bgr.shape[:2]
    factor = MOST_PIXELS / max(height, width)
    if factor >= 1:
        return bgr
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(bgr, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


class Thumbnail(NamedTuple):
    """A picture for the page.

    Attributes:
        uri: The JPEG as a `data:` URI.
        width: Width in pixels.
        height: Height in pixels.
    """

    uri: str
    width: int
    height: int


def encode(pictures: Mapping[int, NDArray[np.uint8]]) -> dict[int, Thumbnail]:
    """Encode BGR pictures, uint8 of shape (height, width, 3) and any size, as thumbnails."""
    small = {index: _shrink(picture) for index, picture in pictures.items()}
    for quality in _QUALITIES:
        jpegs = {
            index: cv2.imencode(
                ".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
            )[1]
            for index, bgr in small.items()
        }
        if sum(jpeg.size for jpeg in jpegs.values()) <= _BUDGET:
            break
    return {
        index: Thumbnail(
            f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}",
            width=small[index].shape[1],
            height=small[index].shape[0],
        )
        for index, jpeg in jpegs.items()
    }
