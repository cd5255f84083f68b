"""The input of a quantised model, made of NV12."""

import numpy as np
from numpy.typing import NDArray


def fill(image: NDArray[np.int8], nv12: NDArray[np.uint8]) -> None:
    """Write the input of a quantised model.

    Args:
        image: int8 (1, H, W, 3), written: Y, U and V minus 128; each pixel gets the chroma of
            its 2x2 square.
        nv12: uint8 (H * 3 / 2, W).
    """
    _, height, width, _ = image.shape
    samples = image.view(np.uint8)[0]
    np.bitwise_xor(nv12[:height], 0x80, out=samples[..., 0])
    chroma = nv12[height:].reshape(height // 2, 1, width // 2, 1, 2)
    squares = samples.reshape(height // 2, 2, width // 2, 2, 3)
    np.bitwise_xor(chroma, 0x80, out=squares[..., 1:])
