"""Conversion to NV12, against the Model Zoo's recipe."""

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
"""Of images used in turn: more than caches hold."""

_ARRIVED, _COLD = "just arrived", "in no cache"

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
    "Medians of calls in turn, one thread, the whole image stretched to 224x224. Baseline: the "
    "whole image to BGR, bilinear resize, BGR2YUV_I420, U and V interleaved by NumPy. x: how many "
    "times faster than that. An image has just arrived when it was just copied, as rclpy hands "
    "images out; in no cache it lies when much else was read since."
)


def run(options: BenchOptions) -> Part:
    """Every encoding at every size; small sizes only for a quick look."""
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
    plain = Nv12Converter(_SIDE, _SIDE, fit="stretch", antialias=False)
    smooth = Nv12Converter(_SIDE, _SIDE, fit="stretch", antialias=True)
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
        "antialias_us": float(with_antialias),
        "antialias_ratio": float(base / with_antialias),
    }
    names = ("baseline", "without antialias", "with antialias")
    series = dict(zip(names, times, strict=True))
    return row, Distribution(f"{title} {state}", series)


def _copied(frame: Frame) -> Frame:
    """The same frame elsewhere, as bytes that nobody may write to."""
    return replace(frame, data=np.frombuffer(frame.data.tobytes(), np.uint8))
