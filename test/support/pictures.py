"""Pictures and videos to read."""

import struct

import cv2
import numpy as np


def picture(seed, width=36, height=22):
    """BGR noise: every pixel and channel different."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_video(path, shades=(40, 120, 200), rate=25, ratio=None):
    """An AVI of grey frames, 64x48; `ratio` is its exact rate, as two integers."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    for shade in shades:
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    if ratio:
        contents = bytearray(path.read_bytes())
        # AVISTREAMHEADER: type, handler, flags, priority, language, initial frames, scale, rate.
        struct.pack_into("<2I", contents, contents.index(b"strh") + 28, ratio[1], ratio[0])
        path.write_bytes(contents)
    return path
