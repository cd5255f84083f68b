"""JPEG files: check the segments, and the scans, before a decoder sees the file.

A progressive JPEG sends its coefficients in many scans, and libjpeg visits the whole picture for
each: a scan of a few bytes costs milliseconds, and nothing limits their number. So the scans are
counted against the picture's size, and must come in the order of the format. Segments are those of
ITU-T T.81, annex B; the order of scans is that of annex G.1.1.1.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import NamedTuple

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

START = b"\xff\xd8\xff"

_END = b"\xff\xd9"

_MARKER = re.compile(rb"\xff(?:[^\x00\x01\xff\xd0-\xd7]|\xff{31,})")
"""A marker, but for those that carry nothing: stuffing, TEM and restarts; or many fill bytes.

Without the latter, the search would begin anew at each of millions of them.
"""

_FILL = 0xFF

_SOF0, _SOF2, _DHT, _SOI, _EOI, _SOS, _DRI, _APP1 = 0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDD, 0xE1
_FRAMES = frozenset(range(_SOF0, 0xD0)) - {_DHT, 0xC8, 0xCC}
"""Markers of frame headers, whatever the coding; 0xC8 and 0xCC are others."""

_EXIF = b"Exif\0\0"

_MAX_SEGMENTS = 2000
"""Segments that a file may have. The largest metadata in use, depth maps and panoramas as XMP,
take some hundred segments of 64 kB."""

_BLOCK = 64
"""Coefficients of a block, which is 8x8 samples."""

_UNSENT = -1
"""Of a coefficient that no scan has sent; of others, `sent` has how many low bits are left out."""

_SCAN_VISITS = 8
_RESTART_VISITS = 32
"""What a scan costs for each block, and a restart, in visits of a coefficient.

Measured with libjpeg-turbo: 1.2 ns a visit, 8 ns to pass a block, 30 ns to restart.
"""

_MAX_VISITS = 8
"""How often the scans may visit each coefficient, on average.

libjpeg's and mozjpeg's scripts for progressive JPEGs stay below 3, and decoding at the limit takes
three to four times as long as without scans.
"""

_CHUNK = 4096
"""Bytes copied at once in the search for the end marker."""


class _Component(NamedTuple):
    """A component's sampling factors."""

    across: int
    down: int


class _Frame(NamedTuple):
    """What a frame header says.

    Attributes:
        width: In pixels.
        height: In pixels.
        is_progressive: Whether it is coded progressively.
        blocks: Blocks of each component by its identifier.
    """

    width: int
    height: int
    is_progressive: bool
    blocks: Mapping[int, int]

    @property
    def all_blocks(self) -> int:
        """Blocks of all components."""
        return sum(self.blocks.values())


class _Scan(NamedTuple):
    """What a scan header says.

    Attributes:
        components: How many components the scan has.
        visits: How many visits of coefficients decoding costs.
        least_bits: Bits that its data have at least: a Huffman code of one bit for each DC
            coefficient of a block, and in sequential JPEGs another for the AC coefficients.
    """

    components: int
    visits: int
    least_bits: int


def read_jpeg(data: NDArray[np.uint8], max_pixels: int) -> FileHeader:
    """Walk the segments of a JPEG file and return its size.

    The walk ends at the data of a baseline JPEG with one scan. Where there may be further scans,
    it goes through to the end of the file.

    Args:
        data: The whole file, uint8, 1-D; begins with `START`.
        max_pixels: Largest size that is accepted, in pixels.

    Raises:
        FrameError: `decode` if the file is cut off, breaks the rules of the format, is coded in
            a way that cameras do not use, or has too many scans; `size` if it declares more than
            `max_pixels`.
    """
    view = data.data
    frame: _Frame | None = None
    sent: dict[int, list[int]] = {}
    first_scan = 0
    may_be_turned = False
    exif_budget = MAX_EXIF_COPIES
    restart_interval = 0
    visits_left = 0
    least_bytes = 0  # of the data that follow
    position = 2
    for _ in range(_MAX_SEGMENTS):
        after = _after_marker(view, position)
        if after is None:
            break
        if after - 2 - position < least_bytes:
            raise _too_little(after - 2 - position, frame)
        least_bytes = 0
        marker = view[after - 1]
        if marker in (_SOI, _EOI):
            break
        content = _content(view, after)
        position = after + 2 + len(content)
        if marker == _APP1:
            may_be_turned = True
            if content[:6] == _EXIF:
                exif_budget = require_cheap_exif(content[6:], exif_budget)
        elif marker in _FRAMES:
            if frame is not None:
                raise _broken("it has two frame headers")
            frame = _read_frame(marker, content)
            require_size(frame.width, frame.height, max_pixels)
            sent = {name: [_UNSENT] * _BLOCK for name in frame.blocks}
            visits_left = _MAX_VISITS * _BLOCK * frame.all_blocks
        elif marker == _DRI and len(content) == 2:
            restart_interval = int.from_bytes(content, "big")
        elif marker == _SOS:
            if frame is None:
                raise _broken("it has no frame header")
            scan = _read_scan(content, frame, sent, restart_interval)
            visits_left -= scan.visits
            if visits_left < 0:
                raise _broken("its scans visit the picture too often")
            least_bytes = scan.least_bits // 8
            if not first_scan:
                first_scan = position
                left = len(view) - position
                if left < max(least_bytes, frame.all_blocks // 8):
                    raise _too_little(left, frame)
                if not frame.is_progressive and scan.components == len(frame.blocks):
                    break
    else:
        raise _broken(f"it has more than {_MAX_SEGMENTS} segments")
    if frame is None:
        raise _broken("it has no frame header")
    # OpenCV 4.5 fills a JPEG that is cut off with grey and reports nothing. Entropy-coded data
    # never contain the end marker; some cameras pad the buffer after it.
    if not first_scan or not _contains(data, _END, first_scan):
        raise cut_off(len(view))
    return FileHeader(True, frame.width, frame.height, may_be_turned, frame.is_progressive)


def _after_marker(view: memoryview, start: int) -> int | None:
    """Find the next marker from `start` on and return where it ends; None if there is none."""
    while found := _MARKER.search(view, start):
        if view[found.end() - 1] != _FILL:
            return found.end()
        start = found.end() - 1  # the last fill byte may begin the marker
    return None


def _content(view: memoryview, start: int) -> memoryview:
    """Return what a segment holds, behind the length at `start`, which counts itself."""
    length = int.from_bytes(view[start : start + 2], "big")
    if length < 2:
        raise _broken("a segment has no length") if start + 2 <= len(view) else cut_off(len(view))
    if start + length > len(view):
        raise cut_off(len(view))
    return view[start + 2 : start + length]


def _read_frame(marker: int, content: memoryview) -> _Frame:
    if not _SOF0 <= marker <= _SOF2:
        raise _broken("it is lossless, hierarchical or arithmetic-coded")
    if len(content) < 6:
        raise _broken("its frame header is too short")
    precision, height, width, count = struct.unpack_from(">BHHB", content)
    if precision != 8 or count not in (1, 3, 4) or len(content) != 6 + 3 * count:
        raise _broken(f"it has {count} components of {precision} bits")
    components = {
        content[at]: _Component(content[at + 1] >> 4, content[at + 1] & 15)
        for at in range(6, len(content), 3)
    }
    factors = {factor for each in components.values() for factor in each}
    if len(components) != count or not factors <= {1, 2, 3, 4}:
        raise _broken("its components are not told apart or have wrong sampling factors")
    across = 8 * max(each.across for each in components.values())
    down = 8 * max(each.down for each in components.values())
    blocks = {
        name: -(-width * each.across // across) * -(-height * each.down // down)
        for name, each in components.items()
    }
    return _Frame(width, height, marker == _SOF2, blocks)


def _read_scan(
    content: memoryview, frame: _Frame, sent: Mapping[int, list[int]], restart_interval: int
) -> _Scan:
    """Read a scan header; enter in `sent`, by component, what the scan sends."""
    count = content[0] if content else 0
    if not 1 <= count <= 4 or len(content) != 4 + 2 * count:
        raise _broken("a scan header has a wrong length")
    names = content[1 : 1 + 2 * count : 2].tolist()
    if len(set(names)) != count or not frame.blocks.keys() >= set(names):
        raise _broken("a scan is of components that the frame does not have")
    first, last, approximation = content[-3:]
    blocks = sum(frame.blocks[name] for name in names)
    visits = _SCAN_VISITS
    if frame.is_progressive:
        for name in names:
            _note_scan(sent[name], first, last, approximation)
        if approximation >> 4:
            visits += last - first + 1
    if restart_interval:
        visits += _RESTART_VISITS // restart_interval
    codes = 2
    if frame.is_progressive:
        codes = int(first == 0)  # one code of AC coefficients may end thousands of blocks
    return _Scan(count, visits * blocks, codes * blocks)


def _note_scan(sent: list[int], first: int, last: int, approximation: int) -> None:
    """Enter in `sent`, of each coefficient, what a scan sends of a component, if it may do so now.

    The DC coefficient comes first, so that no scan can do with fewer bits than there are blocks;
    and a scan that refines coefficients goes on from where the one before stopped.
    """
    if not first <= last < _BLOCK or (first and sent[0] == _UNSENT):
        raise _broken("a scan sends coefficients that it cannot have")
    before, after = approximation >> 4, approximation & 15
    if any(max(bits, 0) != before for bits in sent[first : last + 1]):
        raise _broken("its scans do not follow each other")
    sent[first : last + 1] = [after] * (last + 1 - first)


def _too_little(size: int, frame: _Frame | None) -> FrameError:
    """Return the error for data of `size` bytes that cannot hold all blocks."""
    sides = f"{frame.width}x{frame.height}" if frame else "all"
    return FrameError(
        "decode", f"the compressed image is cut off: {size} bytes cannot hold {sides} pixels"
    )


def _contains(data: NDArray[np.uint8], mark: bytes, start: int) -> bool:
    """Search `mark` from `start` on; begin at the end, where it should be."""
    stop = data.size
    while stop > start:
        begin = max(start, stop - _CHUNK)
        if mark in data[begin : stop + len(mark) - 1].tobytes():
            return True
        stop = begin
    return False


def _broken(reason: str) -> FrameError:
    return FrameError("decode", f"the JPEG cannot be decoded: {reason}")
