"""Photos or a video as a stream of frames, as from a camera."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from efv2_ros.errors import Efv2Error
from efv2_ros.pictures.photo import SUFFIXES, find_photos, read_file, read_photo
from efv2_ros.vision.compressed import MAX_PIXELS
from efv2_ros.vision.frame import Frame, FrameError, Header

PHOTO_RATE = Fraction(10)
"""Rate of photos, in pictures per second."""

_LARGEST_DENOMINATOR = 1001
"""Limit for the fraction of a video's rate, which OpenCV gives as a float: NTSC's rates are
24000 / 1001 and 30000 / 1001."""

_FILE_STARTS = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}


class PicturesError(Efv2Error):
    """There are no pictures, or none can be read."""


class Pictures:
    """Photos in their order, or a video's frames, as `bgr8` frames whose stamps are 0.

    Args:
        paths: Photos and folders of photos; or one video.
        on_left_out: Called with the reason, once for each photo that cannot be read; it is left
            out from then on.
        kept: Encodings, `jpeg` or `png`, whose files are passed on undecoded.
        max_pixels: Maximum size of a photo or of a video's frame that is decoded, in pixels.

    Attributes:
        rate: Rate of the video, or `PHOTO_RATE`, in pictures per second.

    Raises:
        PicturesError: A path does not exist, or is neither photos nor a video.
        FrameError: A folder holds no photo.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        on_left_out: Callable[[str], None],
        kept: Collection[str] = (),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._name = ", ".join(map(str, paths))
        self._source: _Photos | _Video
        others = [each for each in paths if not _holds_photos(each)]
        if not others:
            self._source = _Photos(find_photos(paths), on_left_out, kept, max_pixels)
        else:
            self._source = _Video(others[0], max_pixels)
            if len(paths) > 1:
                raise PicturesError(f"{others[0]} is a video: give no other files beside it")
        self.rate = self._source.rate

    def __len__(self) -> int:
        """Count the pictures of one pass; a video's count may be wrong, or 0 if unknown."""
        return len(self._source)

    def once(self) -> Iterator[Frame]:
        """Read all pictures once.

        Raises:
            PicturesError: No picture can be read.
        """
        empty = True
        for frame in self._source.frames():
            yield frame
            empty = False
        if empty:
            raise PicturesError(f"no image can be read from {self._name}")

    def endless(self) -> Iterator[Frame]:
        """Read all pictures again and again.

        Raises:
            PicturesError: No picture can be read.
        """
        while True:
            yield from self.once()


class _Photos:
    rate = PHOTO_RATE

    def __init__(
        self,
        files: list[Path],
        on_left_out: Callable[[str], None],
        kept: Collection[str],
        max_pixels: int,
    ) -> None:
        self._files = files
        self._on_left_out = on_left_out
        self._kept = kept
        self._max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self._files)

    def frames(self) -> Iterator[Frame]:
        for file in list(self._files):
            try:
                frame = self._read(file)
            except (FrameError, OSError) as error:
                self._files.remove(file)
                self._on_left_out(str(error))
                continue
            yield frame

    def _read(self, file: Path) -> Frame:
        if self._kept:
            contents = read_file(file, self._max_pixels)
            start = contents[:8].tobytes()
            for encoding in self._kept:
                if start.startswith(_FILE_STARTS[encoding]):
                    return Frame(Header(frame_id=file.name), encoding, contents)
        return read_photo(file, self._max_pixels)


class _Video:
    def __init__(self, path: Path, max_pixels: int) -> None:
        if not path.exists():
            raise PicturesError(f"there is no file {path}")
        try:
            str(path).encode()
        except UnicodeEncodeError as error:  # OpenCV ends the process
            raise PicturesError(
                f"OpenCV opens no video whose name is not UTF-8: rename {path}"
            ) from error
        video = cv2.VideoCapture(str(path))
        if not video.isOpened():
            raise PicturesError(f"{path} is neither a photo nor a video OpenCV can read")
        sides = [video.get(each) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        if math.prod(sides) > max_pixels:
            raise PicturesError(
                f"{path} has {sides[0]:.0f}x{sides[1]:.0f} pixels, more than {max_pixels}"
            )
        self._path = path
        self._length = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        rate = video.get(cv2.CAP_PROP_FPS)
        self.rate = _exact(rate) if 0 < rate < math.inf else PHOTO_RATE

    def __len__(self) -> int:
        return self._length

    def frames(self) -> Iterator[Frame]:
        video = cv2.VideoCapture(str(self._path))
        while True:
            read, image = video.read()
            if not read:
                return
            yield Frame.from_bgr(np.asarray(image, np.uint8), Header(frame_id=self._path.name))


def _exact(rate: float) -> Fraction:
    return Fraction(rate).limit_denominator(_LARGEST_DENOMINATOR) or Fraction(rate)


def _holds_photos(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in SUFFIXES
