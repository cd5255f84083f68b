"""Conversion to NV12, against the Model Zoo's recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from efv2_ros.benchmark import baseline
from efv2_ros.benchmark.frames import picture
from efv2_ros.benchmark.interleave import interleaved
from efv2_ros.benchmark.parts import Plan
from efv2_ros.benchmark.report import Column, Distribution, Part, Table
from efv2_ros.planes import Nv12Planes
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.nv12 import Nv12Converter

ENCODINGS = ("bgr8", "rgb8", "mono8", "yuv422_yuy2", "nv12", "bayer_rggb8", "jpeg")
SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))

_SIDE = 224
_COLD_BYTES = 96 << 20
"""Of images used in turn: more than caches hold, as a camera's next image is in none."""

_COLUMNS = (
    Column("encoding", "encoding"),
    Column("size", "size"),
    Column("baseline_us", "baseline (us)", ".0f"),
    Column("plain_us", "without antialias (us)", ".0f"),
    Column("plain_ratio", "x", ".2f"),
    Column("antialias_us", "with antialias (us)", ".0f"),
    Column("antialias_ratio", "x", ".2f"),
)
_NOTE = (
    "Medians of calls in turn, one thread, the whole image stretched to 224x224, images that lie "
    "in no cache. Baseline: the whole image to BGR, bilinear resize, BGR2YUV_I420, U and V "
    "interleaved by NumPy. x: how many times faster than that."
)


def run(plan: Plan) -> Part:
    """Every encoding at every size; small sizes only for a quick look."""
    seconds = plan.duration(3.0, 0.03)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # as in the node
    try:
        results = [
            _measure(plan, encoding, size, seconds)
            for encoding in ENCODINGS
            for size in (SIZES[:2] if plan.quick else SIZES)
        ]
    finally:
        cv2.setNumThreads(threads)
    rows, distributions = zip(*results, strict=True)
    return Part([Table("Conversion to NV12 224x224", _COLUMNS, rows, _NOTE)], distributions)


def _measure(
    plan: Plan, encoding: str, size: tuple[int, int], seconds: float
) -> tuple[dict[str, Any], Distribution]:
    width, height = size
    plan.say(f"conversion of {encoding} {width}x{height}")
    frame = picture(encoding, width, height)
    inputs = [(each, baseline.source(each)) for each in _copies(frame)]
    target = Nv12Planes.of(np.empty((_SIDE * 3 // 2, _SIDE), np.uint8))
    plain = Nv12Converter(_SIDE, _SIDE, fit="stretch", antialias=False)
    smooth = Nv12Converter(_SIDE, _SIDE, fit="stretch", antialias=True)
    times = interleaved(
        [
            lambda each: baseline.to_nv12(each[1], encoding, _SIDE, _SIDE),
            lambda each: plain.convert_into(each[0], target),
            lambda each: smooth.convert_into(each[0], target),
        ],
        inputs,
        seconds,
    )
    base, without, with_antialias = np.median(times, axis=1) * 1e3
    row = {
        "encoding": encoding,
        "size": f"{width}x{height}",
        "rounds": times.shape[1],
        "images": len(inputs),
        "baseline_us": float(base),
        "plain_us": float(without),
        "plain_ratio": float(base / without),
        "antialias_us": float(with_antialias),
        "antialias_ratio": float(base / with_antialias),
    }
    names = ("baseline", "without antialias", "with antialias")
    return row, Distribution(f"{encoding} {width}x{height}", dict(zip(names, times, strict=True)))


def _copies(frame: Frame) -> list[Frame]:
    """The frame in so many places that it is in no cache when its turn comes again."""
    count = max(4, min(256, _COLD_BYTES // frame.data.nbytes))
    return [replace(frame, data=frame.data.copy()) for _ in range(count)]
