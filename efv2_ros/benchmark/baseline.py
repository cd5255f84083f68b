"""Baselines of the benchmark: what the Model Zoo's samples do, written from scratch."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.classify.postprocess import Prediction
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.pixels import PIXEL_FORMATS, pixel_format, view


def source(frame: Frame) -> NDArray[np.uint8]:
    """Return the input of `to_nv12`: a raw frame's pixels for OpenCV, or a JPEG file's bytes."""
    return frame.data if frame.encoding == "jpeg" else view(frame, pixel_format(frame))


def to_nv12(
    image: NDArray[np.uint8], encoding: str, width: int = 224, height: int = 224
) -> NDArray[np.uint8]:
    """Convert a whole image to BGR, stretch it, convert that to NV12.

    The colours are limited-range BT.601, and each chroma sample is that of the top left one of
    four pixels, because OpenCV's BGR2YUV_I420 computes this.

    Args:
        image: uint8, as `source` returns it.
        encoding: The frame's encoding.
        width: Width of the result, even.
        height: Height of the result, even.

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
    """Compute softmax of all logits (float32, shape (classes,)), sort all, return the best `k`."""
    exponentials = np.exp(logits - np.max(logits))
    scores = exponentials / np.sum(exponentials)
    best = np.argsort(scores)[::-1][:k]
    return Prediction(tuple(best.tolist()), tuple(scores[best].tolist()))
