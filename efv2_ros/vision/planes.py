"""The one shape that `vision` writes and `runtimes` read: an NV12 image as two planes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Nv12Planes(NamedTuple):
    """Views of an NV12 image; its rows may lie further apart in memory than they are long.

    Attributes:
        y: uint8, shape (height, width); pixels of a row lie side by side.
        uv: uint8, shape (height / 2, width / 2, 2), U before V; alike.
    """

    y: NDArray[np.uint8]
    uv: NDArray[np.uint8]

    @classmethod
    def of(cls, nv12: NDArray[np.uint8]) -> Nv12Planes:
        """The planes of one array of shape (height * 3 / 2, width), uint8, C-contiguous."""
        height, width = nv12.shape[0] * 2 // 3, nv12.shape[1]
        return cls(nv12[:height], nv12[height:].reshape(height // 2, width // 2, 2))

    @classmethod
    def strided(cls, y: NDArray[np.uint8], uv: NDArray[np.uint8], width: int) -> Nv12Planes:
        """The planes of two arrays whose rows are `width` samples and then padding.

        Args:
            y: uint8, shape (height, pitch).
            uv: uint8, shape (height / 2, pitch), U and V by turns.
            width: Samples of a row that belong to the image; even.
        """
        rows, pitch = uv.shape
        pairs = np.lib.stride_tricks.as_strided(
            uv, (rows, width // 2, 2), (pitch, 2, 1), writeable=True
        )
        return cls(y[:, :width], pairs)
