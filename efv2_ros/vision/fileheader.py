"""What the walks through JPEG and PNG files find, and the limit on the declared size."""

from __future__ import annotations

from typing import NamedTuple

from efv2_ros.vision.frame import FrameError

MAX_PIXELS = 25_000_000
"""Default limit on the pixels that a compressed image may declare.

The worst file that passes the checks, a progressive CMYK JPEG, takes 11 bytes of memory per pixel
to decode: 275 MB at this limit, which a board with 4 GB has to spare. Cameras of 24 megapixels
stay below it.
"""


class PngData(NamedTuple):
    """Where a PNG file has what its picture is made of.

    Attributes:
        start: Start of the first data chunk.
        end: End of the last data chunk.
        before: Start and end of each range of bytes before them that the decoder needs.
        after: The same of those behind them.
        inflated_bytes: Bytes that the data chunks inflate to.
    """

    start: int
    end: int
    before: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    inflated_bytes: int


class FileHeader(NamedTuple):
    """Format and size of a compressed image, as declared, before EXIF turns it upright.

    Attributes:
        is_jpeg: True for JPEG, False for PNG.
        width: Columns, in pixels.
        height: Rows, in pixels.
        may_be_turned: Whether a JPEG has an APP1 segment, in which EXIF stores the orientation.
        is_progressive: Whether a JPEG is coded progressively.
        png: Where a PNG has its picture; None for JPEG.
    """

    is_jpeg: bool
    width: int
    height: int
    may_be_turned: bool = False
    is_progressive: bool = False
    png: PngData | None = None


def require_size(width: int, height: int, max_pixels: int) -> None:
    """Check the declared size of an image file.

    Raises:
        FrameError: `decode` if the image has no pixels, `size` if it has more than `max_pixels`.
    """
    if width < 1 or height < 1:
        raise FrameError("decode", f"the image declares a size of {width}x{height} pixels")
    if width * height > max_pixels:
        raise FrameError(
            "size",
            f"the image declares {width}x{height} pixels, which is more than max_pixels, "
            f"{max_pixels}",
        )


def cut_off(size: int) -> FrameError:
    """Return the error for a file that ends before its image does, after `size` bytes."""
    return FrameError("decode", f"the compressed image is cut off after {size} bytes")


def require_cheap_exif(tiff: memoryview, budget: int) -> int:
    """Check that EXIF data cost OpenCV little to read.

    OpenCV copies the text of every entry of the first directory. Entries may share one text, so
    thousands of them turn some megabytes into minutes of copying.

    Args:
        tiff: The EXIF data from their TIFF header on (TIFF 6.0, section 2).
        budget: Bytes that may still be copied.

    Returns:
        What is left of the budget.

    Raises:
        FrameError: `decode` if the budget does not suffice.
    """
    order = "little" if bytes(tiff[:2]) == b"II" else "big"
    start = int.from_bytes(tiff[4:8], order)  # type: ignore[arg-type]
    entries = int.from_bytes(tiff[start : start + 2], order)  # type: ignore[arg-type]
    budget -= entries * len(tiff)
    if budget < 0:
        raise FrameError("decode", f"the image's EXIF data have {entries} entries")
    return budget


MAX_EXIF_COPIES = 32 << 20
"""Bytes of EXIF texts that OpenCV may copy for one image, which takes milliseconds.

Cameras' first directories have 10 to 30 entries in at most 64 kB.
"""
