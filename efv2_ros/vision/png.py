"""PNG files: check the chunks before a decoder sees the file.

A chunk says itself how long it is. OpenCV 4.11 allocates what it says, up to 4 GB, and libpng
inflates compressed texts and colour profiles that nobody looks at, and what data there are behind
the picture's. So every length is held against the file's, and only the picture is passed on to the
decoder. Chunk layouts are those of the PNG specification, third edition, chapters 5 and 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.fileheader import (
    MAX_EXIF_COPIES,
    FileHeader,
    PngData,
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

_UNCHECKED_BYTES = 8 << 20
"""Bytes behind the picture that data chunks may inflate to, if they can; they take 20 ms."""

_KEPT_BYTES = 32 << 20
"""Pictures of more bytes are inflated twice, to save memory."""

_PIECE_BYTES = 16 << 10
"""Bytes inflated at once."""

_ZLIB_HEADER = b"\x78\x01"
_ZLIB_HEADER_BYTES = 2
_STORED = struct.Struct("<BHH")
_STORED_BYTES = 0xFFFF
"""Bytes that a stored block of deflated data holds at most."""

_ONE_PASS = ((0, 0, 1, 1),)
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
"""First column and row of each pass of an interlaced picture, and the steps to the next."""

_MAX_EXIF_BYTES = 1 << 20
"""Bytes of EXIF data, which libpng reads one by one, at 25 ns each. Cameras write up to 64 kB."""

_MAX_CHUNKS = 4096
_CHUNK_BYTES = 1024
"""A file may have `_MAX_CHUNKS` chunks, and beyond those one for each `_CHUNK_BYTES` bytes.

Encoders write data chunks of 8 kB and more.
"""

_CHUNK = struct.Struct(">I4s")
_IHDR = struct.Struct(">IIBBBBB")
_CRC_BYTES = 4
_CHECKSUM_BYTES = 4


def read_png(data: NDArray[np.uint8], max_pixels: int) -> FileHeader:
    """Walk the chunks of a PNG file and return its size and the chunks to decode.

    Checksums and the compressed data are left to `decodable` and the decoder, which notice what
    is wrong with them before they have spent more than the declared size is worth.

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
    header, colour, inflated_bytes = _read_ihdr(view, start, max_pixels)
    before, after = [(0, end)], list[tuple[int, int]]()
    first = last = 0  # of the data
    seen: set[bytes] = set()
    while kind != b"IEND":
        position = end
        kind, start, end = _chunk(view, position)
        if kind == b"IDAT":
            if first or (colour == _PALETTE and b"PLTE" not in seen):
                raise _broken("its data are not where they belong")
            chunks, end = _data_end(view, position, chunks_left)
            first, last = position, end
            chunks_left -= chunks
            if inflated_bytes > (last - first) * _MAX_INFLATION:
                raise cut_off(size)
        else:
            is_needed = kind == b"IEND" or _is_needed(
                kind, view[start : end - _CRC_BYTES], colour, seen, bool(first)
            )
            if is_needed:
                (after if first else before).append((position, end))
            chunks_left -= 1
        if chunks_left < 0:
            raise _broken("it consists of too many small chunks")
    if not first:
        raise _broken("it has no data")
    return header._replace(png=PngData(first, last, tuple(before), tuple(after), inflated_bytes))


def decodable(data: NDArray[np.uint8], png: PngData) -> NDArray[np.uint8]:
    """Return a PNG file with the same picture that costs the decoder no more than the picture.

    It has only the chunks that make up the picture. Behind the picture's last row, libpng inflates
    what else the data chunks hold, which can be a thousand times their size. Where that can be
    much, they are inflated here, which stops in time, and passed on without compression.

    Args:
        data: The whole file, uint8, 1-D, contiguous.
        png: What `read_png` found in it.

    Raises:
        FrameError: `decode` if the data hold more than the picture, are damaged or cut off.
    """
    view = data.data
    chunks = view[png.start : png.end]
    most_behind = len(chunks) * _MAX_INFLATION - png.inflated_bytes
    is_checked = most_behind > _UNCHECKED_BYTES
    pixels = _inflated(chunks, png.inflated_bytes) if is_checked else [chunks]
    before, after = ([view[start:end] for start, end in each] for each in (png.before, png.after))
    return np.frombuffer(b"".join([*before, *pixels, *after]), np.uint8)


def _inflated(chunks: memoryview, inflated_bytes: int) -> list[bytes | memoryview]:
    """Inflate data chunks; return them, or if small enough one chunk of what was inflated."""
    compressed = memoryview(b"".join(_contents(chunks)))
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)  # the decoder will check the checksum
    keep = inflated_bytes <= _KEPT_BYTES
    pieces = []
    left = inflated_bytes
    end = len(compressed)
    try:
        for start in range(_ZLIB_HEADER_BYTES, len(compressed), _PIECE_BYTES):
            piece = inflate.decompress(compressed[start : start + _PIECE_BYTES], left + 1)
            left -= len(piece)
            if left < 0:
                raise _broken("its data hold more than its pixels")
            if keep:
                pieces.append(piece)
            if inflate.eof:
                end = min(start + _PIECE_BYTES, end) - len(inflate.unused_data)
                break
        else:
            raise _broken("its data end too early")
    except zlib.error as error:
        raise _broken(f"its data cannot be inflated ({error})") from error
    checksum = compressed[end : end + _CHECKSUM_BYTES]
    return _stored_chunk(pieces, checksum) if keep else [chunks]


def _stored_chunk(pieces: Iterable[bytes], checksum: memoryview) -> list[bytes | memoryview]:
    """Return the parts of a data chunk with the pieces, uncompressed, and their checksum.

    The decoder holds the checksum, that of the compressed data, against the pieces. The layout is
    that of RFC 1950, and RFC 1951, 3.2.4.
    """
    parts: list[bytes | memoryview] = [b"IDAT", _ZLIB_HEADER]
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(piece), _STORED_BYTES):
            block = view[start : start + _STORED_BYTES]
            parts += [_STORED.pack(0, len(block), len(block) ^ 0xFFFF), block]
    parts += [_STORED.pack(1, 0, 0xFFFF), checksum]
    length = sum(map(len, parts)) - len(b"IDAT")
    return [length.to_bytes(4, "big"), *parts, _crc(parts)]


def _crc(parts: Iterable[bytes | memoryview]) -> bytes:
    """Return the checksum of a chunk's kind and content, which follow each other in parts."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc.to_bytes(_CRC_BYTES, "big")


def _contents(view: memoryview) -> Iterator[memoryview]:
    """Iterate over what chunks hold that follow each other, once their checksums are right."""
    position = 0
    while position < len(view):
        length, _ = _CHUNK.unpack_from(view, position)
        start = position + _CHUNK.size
        end = start + length
        if _crc([view[start - len(b"IDAT") : end]]) != view[end : end + _CRC_BYTES]:
            raise _broken("a checksum of its data is wrong")
        yield view[start:end]
        position = end + _CRC_BYTES


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


def _data_end(view: memoryview, position: int, most_chunks: int) -> tuple[int, int]:
    """Return how many data chunks follow each other, and where the chunk after them starts.

    The count ends when it exceeds `most_chunks`.

    OpenCV writes data chunks of 8 kB, so a large picture has hundreds: this loop has to be quick.
    """
    last = len(view) - _CHUNK.size
    unpack = _CHUNK.unpack_from
    chunks = 0
    while position <= last:
        length, kind = unpack(view, position)
        if kind != b"IDAT" or chunks > most_chunks:
            return chunks, position
        chunks += 1
        position += length + _CHUNK.size + _CRC_BYTES
    raise cut_off(len(view))


def _read_ihdr(view: memoryview, start: int, max_pixels: int) -> tuple[FileHeader, int, int]:
    """Return the header, the colour type, and how many bytes the data inflate to."""
    width, height, depth, colour, compression, filtering, interlacing = _IHDR.unpack_from(
        view, start
    )
    if depth not in _DEPTHS.get(colour, ()):
        raise _broken(f"it declares colour type {colour} with {depth} bits per sample")
    if compression or filtering or interlacing > 1:
        raise _broken("it declares an unknown compression, filter or interlace method")
    require_size(width, height, max_pixels)
    passes = _ADAM7 if interlacing else _ONE_PASS
    inflated_bytes = sum(
        rows * (1 + -(-columns * depth * _CHANNELS[colour] // 8))
        for x, y, right, down in passes
        if (columns := -(-(width - x) // right)) > 0 and (rows := -(-(height - y) // down)) > 0
    )
    return FileHeader(False, width, height), colour, inflated_bytes


def _is_needed(
    kind: bytes, content: memoryview, colour: int, seen: set[bytes], has_data: bool
) -> bool:
    """Check a chunk that is neither header, data nor end; return whether to decode it."""
    if kind == b"PLTE":
        misplaced = has_data or kind in seen
        if misplaced or len(content) % 3 or not 0 < len(content) <= _PALETTE_BYTES:
            raise _broken("its palette is misplaced or has a wrong length")
    elif kind == b"eXIf":
        if kind in seen:
            raise _broken("it has EXIF data twice")
        if len(content) > _MAX_EXIF_BYTES:
            raise _broken(f"it has EXIF data of {len(content)} bytes")
        require_cheap_exif(content, MAX_EXIF_COPIES)
    elif not kind[0] & 0x20:
        raise _broken(f"it has an unknown critical chunk {kind!r}")
    else:
        return False
    seen.add(kind)
    return kind == b"eXIf" or colour == _PALETTE


def _broken(reason: str) -> FrameError:
    return FrameError("decode", f"the PNG cannot be decoded: {reason}")
