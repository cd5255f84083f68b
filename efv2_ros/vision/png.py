"""PNG files: check the chunks before a decoder sees the file.

A chunk says itself how long it is. OpenCV 4.11 allocates what it says, up to 4 GB, and libpng
inflates compressed texts and colour profiles that nobody looks at. So every length is held against
the file's, and only the chunks that make up the picture are passed on to the decoder. Chunk
layouts are those of the PNG specification, third edition, chapters 5 and 11.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.fileheader import (
    MAX_EXIF_COPIES,
    FileHeader,
    cut_off,
    require_cheap_exif,
    require_size,
)
from efv2_ros.vision.frame import FrameError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits per sample that each colour type may have."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel of each colour type."""

_PALETTE = 3
"""The colour type whose pixels are indices into the palette."""

_PALETTE_BYTES = 3 * 256

_MAX_INFLATION = 1032
"""Bytes that one byte of deflated data can become: 258 for each 2 bits (RFC 1951, 3.2.5)."""

_MAX_CHUNKS = 4096
_CHUNK_BYTES = 1024
"""A file may have `_MAX_CHUNKS` chunks, and beyond those one for each `_CHUNK_BYTES` bytes.

Encoders write data chunks of 8 kB and more.
"""

_CHUNK = struct.Struct(">I4s")
_IHDR = struct.Struct(">IIBBBBB")
_CRC_BYTES = 4


def read_png(data: NDArray[np.uint8], max_pixels: int) -> FileHeader:
    """Walk the chunks of a PNG file and return its size and the chunks to decode.

    Checksums and the compressed data are left to the decoder, which notices what is wrong with
    them before it has spent more than the declared size is worth.

    Args:
        data: The whole file, uint8, 1-D; begins with `SIGNATURE`.
        max_pixels: Largest size that is accepted, in pixels.

    Raises:
        FrameError: `decode` if the file is cut off or breaks the rules of the format; `size` if
            it declares more than `max_pixels`.
    """
    view = data.data
    size = len(view)
    chunks_left = max(_MAX_CHUNKS, size // _CHUNK_BYTES)
    position = len(SIGNATURE)
    kind, start, end = _chunk(view, position)
    if kind != b"IHDR" or end - start != _IHDR.size + _CRC_BYTES:
        raise _broken("it does not begin with its header")
    header, colour, pixel_bytes = _read_ihdr(view, start, max_pixels)
    parts = [(0, end)]
    seen: set[bytes] = set()
    while kind != b"IEND":
        position = end
        kind, start, end = _chunk(view, position)
        keep = True
        if kind == b"IDAT":
            if b"IDAT" in seen or (colour == _PALETTE and b"PLTE" not in seen):
                raise _broken("its data are not where they belong")
            seen.add(kind)
            chunks, end = _data_end(view, position)
            chunks_left -= chunks
            if pixel_bytes > (end - position) * _MAX_INFLATION:
                raise cut_off(size)
        elif kind != b"IEND":
            keep = _checked(kind, view[start : end - _CRC_BYTES], colour, seen)
            chunks_left -= 1
        if chunks_left < 0:
            raise _broken("it consists of too many small chunks")
        if keep and parts[-1][1] == position:
            parts[-1] = (parts[-1][0], end)
        elif keep:
            parts.append((position, end))
    if b"IDAT" not in seen:
        raise _broken("it has no data")
    return header._replace(parts=tuple(parts))


def _chunk(view: memoryview, position: int) -> tuple[bytes, int, int]:
    """Return a chunk's type, where its content starts, and where the next chunk does."""
    if position + _CHUNK.size > len(view):
        raise cut_off(len(view))
    length, kind = _CHUNK.unpack_from(view, position)
    start = position + _CHUNK.size
    end = start + length + _CRC_BYTES
    if end > len(view):
        raise cut_off(len(view))
    return kind, start, end


def _data_end(view: memoryview, position: int) -> tuple[int, int]:
    """Return how many data chunks follow each other, and where the chunk after them starts.

    OpenCV writes data chunks of 8 kB, so a large picture has hundreds: this loop has to be quick.
    """
    last = len(view) - _CHUNK.size
    unpack = _CHUNK.unpack_from
    chunks = 0
    while position <= last:
        length, kind = unpack(view, position)
        if kind != b"IDAT":
            return chunks, position
        chunks += 1
        position += length + _CHUNK.size + _CRC_BYTES
    raise cut_off(len(view))


def _read_ihdr(view: memoryview, start: int, max_pixels: int) -> tuple[FileHeader, int, int]:
    """Return the header, the colour type, and the least bytes of the uncompressed picture."""
    width, height, depth, colour, compression, filtering, interlacing = _IHDR.unpack_from(
        view, start
    )
    if depth not in _DEPTHS.get(colour, ()):
        raise _broken(f"it declares colour type {colour} with {depth} bits per sample")
    if compression or filtering or interlacing > 1:
        raise _broken("it declares an unknown compression, filter or interlace method")
    require_size(width, height, max_pixels)
    pixel_bytes = width * height * depth * _CHANNELS[colour] // 8
    return FileHeader(False, width, height), colour, pixel_bytes


def _checked(kind: bytes, content: memoryview, colour: int, seen: set[bytes]) -> bool:
    """Check a chunk that is neither header, data nor end; return whether to decode it."""
    if kind == b"PLTE":
        misplaced = kind in seen or b"IDAT" in seen
        if misplaced or len(content) % 3 or not 0 < len(content) <= _PALETTE_BYTES:
            raise _broken("its palette is misplaced or has a wrong length")
    elif kind == b"eXIf":
        if kind in seen:
            raise _broken("it has EXIF data twice")
        require_cheap_exif(content, MAX_EXIF_COPIES)
    elif not kind[0] & 0x20:
        raise _broken(f"it has an unknown critical chunk {kind!r}")
    else:
        return False
    seen.add(kind)
    return kind == b"eXIf" or colour == _PALETTE


def _broken(reason: str) -> FrameError:
    return FrameError("decode", f"the PNG cannot be decoded: {reason}")
