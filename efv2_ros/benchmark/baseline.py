"""The recipes of the Model Zoo's samples, written anew: what this package is compared with."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.classify.postprocess import Prediction
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.pixels import PIXEL_FORMATS, pixel_format, view


def source(frame: Frame) -> NDArray[np.uint8]:
    """What the recipe is given: a raw frame's pixels as OpenCV wants them, or a file's bytes."""
    return frame.data if frame.encoding == "jpeg" else view(frame, pixel_format(frame))


def to_nv12(
    image: NDArray[np.uint8], encoding: str, width: int = 224, height: int = 224
) -> NDArray[np.uint8]:
    """Stretch an image to NV12: all of it to BGR, then resize, then convert and interleave.

    Limited-range BT.601, each chroma sample that of the top left of its four pixels: what
    OpenCV's BGR2YUV_I420 makes.

    Args:
        image: uint8, a `source` of the encoding.
        encoding: As in a Frame.
        width: Of the result, even.
        height: Of the result, even.

    Returns:
        uint8, shape (height * 3 / 2, width).
    """
    bgr: NDArray[np.uint8] = image
    if encoding == "jpeg":
        bgr = np.asarray(cv2.imdecode(image, cv2.IMREAD_COLOR), np.uint8)
    elif (code := PIXEL_FORMATS[encoding].to_bgr) is not None:
        bgr = np.asarray(cv2.cvtColor(image, code), np.uint8)
    resized = cv2.resize(bgr, (width, height), interpolation=cv2.INTER_LINEAR)
    i420 = cv2.cvtColor(resized, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    luma, quarter = width * height, width * height // 4
    u, v = i420[luma : luma + quarter], i420[luma + quarter :]
    chroma = np.stack([u, v], axis=-1).reshape(-1)
    nv12: NDArray[np.uint8] = np.concatenate([i420[:luma], chroma]).reshape(-1, width)
    return nv12


def top_k(logits: NDArray[np.float32], k: int = 5) -> Prediction:
    """Softmax of all logits, float32 of shape (classes,), and a sort of them all."""
    exponentials = np.exp(logits - np.max(logits))
    scores = exponentials / np.sum(exponentials)
    best = np.argsort(scores)[::-1][:k]
    return Prediction(tuple(best.tolist()), tuple(scores[best].tolist()))
