"""Declared sizes of BMP, PNM, TIFF and WebP photos, read before OpenCV decodes them.

JPEG and PNG, which also arrive in messages, are checked by `vision.compressed`.
"""

from __future__ import annotations

import re
import struct

from efv2_ros.vision.frame import FrameError

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")

_TIFF_STARTS = (b"II*\0", b"MM\0*")
_TIFF_NUMBERS = {3: "H", 4: "I"}
"""Types of a TIFF's numbers that may give a size: SHORT and LONG, as `struct` writes them."""

_WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 259, 322, 323
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
"""None, CCITT, LZW, JPEG, deflate and PackBits; the rest is rare and may ask for any memory."""


def declared_size(contents: memoryview) -> tuple[int, int]:
    """Return width and height of the largest picture that a decoder allocates for a file.

    For a tiled TIFF that may be a tile instead of the image.

    Args:
        contents: The whole file.

    Raises:
        FrameError: `decode` if it is none of the formats, or does not declare its size.
    """
    start = bytes(contents[:32])
    try:
        if start.startswith(b"BM"):
            return _bmp_size(start)
        if start[:4] in _TIFF_STARTS:
            return _tiff_size(contents)
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _webp_size(start)
    except (struct.error, KeyError) as error:
        raise FrameError("decode", "the image does not declare its size") from error
    if found := _PNM.match(contents):
        return int(found[1]), int(found[2])
    raise FrameError("decode", "the file is not a JPEG, PNG, BMP, PNM, TIFF or WebP image")


def _bmp_size(start: bytes) -> tuple[int, int]:
    """Read the size from the bitmap header, of which OS/2's has 12 bytes and 16-bit numbers."""
    (header_bytes,) = struct.unpack_from("<I", start, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", start, 18)
    return width, abs(height)  # rows from top to bottom have a negative height


def _webp_size(start: bytes) -> tuple[int, int]:
    """Read the size from the first chunk (RFC 9649, section 2)."""
    kind = start[12:16]
    if kind == b"VP8X":
        width, _, height, _ = struct.unpack_from("<HBHB", start, 24)
        return (width | start[26] << 16) + 1, (height | start[29] << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", start, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", start, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff_size(contents: memoryview) -> tuple[int, int]:
    """Read the size from the first directory (TIFF 6.0, section 2)."""
    order = "<" if contents[0] == ord("I") else ">"
    (directory,) = struct.unpack_from(f"{order}I", contents, 4)
    (count,) = struct.unpack_from(f"{order}H", contents, directory)
    values = {_COMPRESSION: 1, _TILE_WIDTH: 0, _TILE_HEIGHT: 0}
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, _ = struct.unpack_from(f"{order}HHI", contents, at)
        if kind in _TIFF_NUMBERS:
            (values[tag],) = struct.unpack_from(order + _TIFF_NUMBERS[kind], contents, at + 8)
    if values[_COMPRESSION] not in _TIFF_COMPRESSIONS:
        raise FrameError("decode", f"TIFF compression {values[_COMPRESSION]} is not supported")
    image = values[_WIDTH], values[_HEIGHT]
    tile = values[_TILE_WIDTH], values[_TILE_HEIGHT]
    return max(image, tile, key=lambda size: size[0] * size[1])
