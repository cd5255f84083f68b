"""Decoder of JPEG files to their Y, U and V planes, with the optional libturbojpeg.

A JPEG stores YUV planes. OpenCV upsamples the chroma and converts to BGR, which the conversion to
NV12 would have to undo; libturbojpeg returns the planes themselves. The library is apt's
libturbojpeg, or the one inside PyPI's `turbojpeg`. It is called through ctypes, which releases the
GIL meanwhile, with the functions of libjpeg-turbo 2.1's turbojpeg.h, which 3.x still has.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.vision.compressed import FileHeader

_SHARED = {0: (1, 1), 1: (2, 1), 2: (2, 2), 3: (1, 1), 4: (1, 2), 5: (4, 1)}
"""Pixels across and down that share a chroma sample, by subsampling (TJSAMP): 4:4:4, 4:2:2, 4:2:0,
grey, 4:4:0, 4:1:1."""

_GREY = 3
_YUV_SPACES = (1, 2)
"""Colour spaces (TJCS) that are decoded: YCbCr and grey."""

_STOP_ON_WARNING = 8192
"""TJFLAG_STOPONWARNING; libraries that do not know it ignore it."""

_HARMLESS = b"extraneous bytes before marker 0xd9"
"""libjpeg's warning about padding between the picture and the end marker, which many USB cameras
write; the picture is complete."""


class YuvPicture(NamedTuple):
    """The planes of a decoded JPEG, in full range; the next picture overwrites them.

    Attributes:
        planes: Y, then U and V unless the picture is grey: each uint8 of shape (height, width),
            padded at the right and bottom to whole chroma samples.
        shared: Pixels across and down that share a chroma sample.
    """

    planes: tuple[NDArray[np.uint8], ...]
    shared: tuple[int, int]


@functools.cache
def load() -> ctypes.CDLL | None:
    """Load the library; return None if there is none that has all functions."""
    for name in ("libturbojpeg.so.0", *_bundled()):
        try:
            return _declare(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
    return None


def _bundled() -> list[str]:
    """Find the libraries that PyPI's `turbojpeg` contains, without importing it."""
    spec = find_spec("turbojpeg")
    if spec is None or spec.origin is None:
        return []
    return [str(each) for each in Path(spec.origin).parent.glob("turbojpeg.libs/libturbojpeg*")]


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    handle, jpeg, size, number = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int
    numbers = ctypes.POINTER(ctypes.c_int)
    planes = ctypes.POINTER(ctypes.c_void_p)
    for name, result, arguments in (
        ("tjInitDecompress", handle, []),
        ("tjDestroy", number, [handle]),
        ("tjDecompressHeader3", number, [handle, jpeg, size, *[numbers] * 4]),
        (
            "tjDecompressToYUVPlanes",
            number,
            [handle, jpeg, size, planes, number, numbers, number, number],
        ),
        ("tjGetErrorStr2", ctypes.c_char_p, [handle]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class _Buffers:
    """Memory for planes of one size, with the pointers and strides that libturbojpeg takes."""

    def __init__(self, width: int, height: int, subsampling: int) -> None:
        across, down = _SHARED[subsampling]
        columns, rows = -(-width // across), -(-height // down)
        self.of = (width, height, subsampling)
        shapes = [(rows * down, columns * across), (rows, columns), (rows, columns)]
        self.planes = tuple(
            np.empty(shape, np.uint8) for shape in (shapes[:1] if subsampling == _GREY else shapes)
        )
        self.pointers = (ctypes.c_void_p * 3)(*(plane.ctypes.data for plane in self.planes))
        self.strides = (ctypes.c_int * 3)(*(plane.shape[1] for plane in self.planes))


class JpegDecoder:
    """Decoder of JPEGs that reuses its memory. Not thread-safe: use one for each worker."""

    def __init__(self) -> None:
        self._handle: int | None = None
        self._buffers: _Buffers | None = None
        self._free: Any = None

    def decode(
        self,
        data: NDArray[np.uint8],
        header: FileHeader,
        reduction: int,
        origin: tuple[int, int] = (0, 0),
    ) -> YuvPicture | None:
        """Decode a JPEG and shrink it meanwhile.

        Args:
            data: The whole file, uint8, 1-D.
            header: The file's, from `read_header`.
            reduction: Factor by which every plane is shrunk: 1, 2, 4 or 8. Its sides are
                `ceil(side / reduction)`.
            origin: Column and row, in pixels of the file, of the region that the caller uses.

        Returns:
            The picture, or None if OpenCV should decode the file: the library is missing; the
            region begins inside a chroma sample, which would shift the chroma; or the file is not
            a plain YCbCr or grey JPEG, may be turned by EXIF, or is damaged. So the same damaged
            files give a picture with and without the library.
        """
        library = load()
        if library is None or not header.is_jpeg or header.may_be_turned:
            return None
        if self._handle is None:
            self._handle = library.tjInitDecompress()
            self._free = weakref.finalize(self, library.tjDestroy, self._handle)
        data = np.ascontiguousarray(data)
        jpeg = (self._handle, data.ctypes.data, data.size)
        found = [ctypes.c_int() for _ in range(4)]
        if library.tjDecompressHeader3(*jpeg, *map(ctypes.byref, found)):
            self._give_up()
            return None
        width, height, subsampling, space = (each.value for each in found)
        if (
            (width, height) != (header.width, header.height)
            or space not in _YUV_SPACES
            or subsampling not in _SHARED
            or any(a % (reduction * b) for a, b in zip(origin, _SHARED[subsampling], strict=True))
        ):
            return None
        width, height = -(-width // reduction), -(-height // reduction)
        if self._buffers is None or self._buffers.of != (width, height, subsampling):
            self._buffers = _Buffers(width, height, subsampling)
        buffers = self._buffers
        # A progressive picture shows nothing before its last scan, so that going on after damage
        # is lost time. Not TJFLAG_FASTDCT: the chroma of reduced 4:2:0 would come out wrong.
        flags = _STOP_ON_WARNING if header.is_progressive else 0
        failed = library.tjDecompressToYUVPlanes(
            *jpeg, buffers.pointers, width, buffers.strides, height, flags
        )
        # tjGetErrorCode is no help: it still says "warning" after a later error.
        if failed and (flags or _HARMLESS not in library.tjGetErrorStr2(self._handle)):
            self._give_up()
            return None
        return YuvPicture(buffers.planes, _SHARED[subsampling])

    def _give_up(self) -> None:
        """Drop the handle: after an error in a header, libturbojpeg keeps failing with it."""
        self._free()
        self._handle = None
