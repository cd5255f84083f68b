"""NV12 image as two planes: the output of `vision` and the input of `runtimes`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Nv12Planes(NamedTuple):
    """Views of an NV12 image. Rows may be padded: their distance may exceed their length.

    Attributes:
        y: uint8, shape (height, width); rows are contiguous.
        uv: uint8, shape (height / 2, width / 2, 2), U before V; rows are contiguous.
    """

    y: NDArray[np.uint8]
    uv: NDArray[np.uint8]

    @classmethod
    def of(cls, nv12: NDArray[np.uint8]) -> Nv12Planes:
        """Return the planes of an array of shape (height * 3 / 2, width), uint8, C-contiguous."""
        height, width = nv12.shape[0] * 2 // 3, nv12.shape[1]
        return cls(nv12[:height], nv12[height:].reshape(height // 2, width // 2, 2))

    @classmethod
    def strided(cls, y: NDArray[np.uint8], uv: NDArray[np.uint8], width: int) -> Nv12Planes:
        """Return the planes of two arrays whose rows end with padding.

        Args:
            y: uint8, shape (height, pitch).
            uv: uint8, shape (height / 2, pitch), U and V alternating.
            width: Number of samples of a row before the padding; even.
        """
        rows, pitch = uv.shape
        pairs = np.lib.stride_tricks.as_strided(
            uv, (rows, width // 2, 2), (pitch, 2, 1), writeable=True
        )
        return cls(y[:, :width], pairs)
