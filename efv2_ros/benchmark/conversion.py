"""Benchmark of the conversion of images to NV12, compared with the Model Zoo's recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from efv2_ros.benchmark import baseline
from efv2_ros.benchmark.frames import picture
from efv2_ros.benchmark.interleave import interleaved
from efv2_ros.benchmark.parts import BenchOptions
from efv2_ros.benchmark.report import Column, Distribution, Part, Table
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.nv12 import Nv12Converter
from efv2_ros.vision.planes import Nv12Planes

ENCODINGS = ("bgr8", "rgb8", "mono8", "yuv422_yuy2", "nv12", "bayer_rggb8", "jpeg")
SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))

_SIDE = 224
_COLD_BYTES = 96 << 20
"""Total size of the images that are used in turn; more than caches hold."""

_ARRIVED, _COLD = "just arrived", "in no cache"

_COLUMNS = (
    Column("encoding", "encoding"),
    Column("size", "size"),
    Column("baseline_us", "zoo's recipe (us)", ".0f"),
    Column("plain_us", "without antialias (us)", ".0f"),
    Column("plain_share", "of zoo's", ".2f"),
    Column("antialias_us", "with antialias (us)", ".0f"),
    Column("antialias_share", "of zoo's", ".2f"),
)
_NOTE = (
    "Medians of calls in turn, one thread, to 224x224. The Model Zoo's recipe: convert the whole "
    "image to BGR, stretch it with bilinear samples, BGR2YUV_I420, interleave U and V with NumPy. "
    "The package crops as it does by default (fit=crop). 'of zoo's': time divided by the recipe's "
    "time; below 1 is faster. 'just arrived': each image was copied right before, as rclpy does. "
    "'in no cache': so much other data was read since that no cache holds the image."
)


def run(options: BenchOptions) -> Part:
    """Measure every encoding at every size; only the small sizes for a quick look."""
    seconds = options.duration(2.0, 0.03)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # as in the node
    tables, distributions = [], []
    try:
        for state in (_ARRIVED, _COLD):
            results = [
                _measure(options, picture(encoding, *size), size, state, seconds)
                for encoding in ENCODINGS
                for size in (SIZES[:2] if options.quick else SIZES)
            ]
            rows, drawn = zip(*results, strict=True)
            tables.append(Table(f"Conversion of images {state}", _COLUMNS, rows, _NOTE))
            if state == _ARRIVED:
                distributions += drawn
    finally:
        cv2.setNumThreads(threads)
    return Part(tables, distributions)


def _measure(
    options: BenchOptions, frame: Frame, size: tuple[int, int], state: str, seconds: float
) -> tuple[dict[str, Any], Distribution]:
    encoding, title = frame.encoding, f"{frame.encoding} {size[0]}x{size[1]}"
    options.on_notice(f"conversion of {title} {state}")
    count = max(4, min(256, _COLD_BYTES // frame.data.nbytes)) if state == _COLD else 1
    target = Nv12Planes.of(np.empty((_SIDE * 3 // 2, _SIDE), np.uint8))
    plain = Nv12Converter(_SIDE, _SIDE, antialias=False)
    smooth = Nv12Converter(_SIDE, _SIDE, antialias=True)
    times = interleaved(
        [
            lambda each: baseline.to_nv12(baseline.source(each), encoding, _SIDE, _SIDE),
            lambda each: plain.convert_into(each, target),
            lambda each: smooth.convert_into(each, target),
        ],
        [_copied(frame) for _ in range(count)],
        seconds,
        prepare=_copied if state == _ARRIVED else lambda each: each,
    )
    base, without, with_antialias = np.median(times, axis=1) * 1e3
    row = {
        "encoding": encoding,
        "size": f"{size[0]}x{size[1]}",
        "rounds": times.shape[1],
        "images": count,
        "baseline_us": float(base),
        "plain_us": float(without),
        "plain_ratio": float(base / without),
        "plain_share": float(without / base),
        "antialias_us": float(with_antialias),
        "antialias_ratio": float(base / with_antialias),
        "antialias_share": float(with_antialias / base),
    }
    names = ("baseline", "without antialias", "with antialias")
    series = dict(zip(names, times, strict=True))
    return row, Distribution(f"{title} {state}", series)


def _copied(frame: Frame) -> Frame:
    """Return a copy of the frame with read-only bytes, as a subscription delivers them."""
    return replace(frame, data=np.frombuffer(frame.data.tobytes(), np.uint8))
