"""Everything that hands memory to libdnn, for a Python under AddressSanitizer; see `sanitized`.

    python test/endurance/bpu_sanitized.py ROUNDS SEED

The last line of its output is the result as JSON. The sanitizer ends the program by itself.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
import standins
from bpu_bench import SIDE, Images, catalog, misuse

from efv2_ros.classify.engine import Engine
from efv2_ros.classify.options import ONLY_CAMERA, ModelRequest, ViewOptions
from efv2_ros.messages.images import image_frame
from efv2_ros.runtimes.base import ImageInput, RunOptions, Runtime, open_runtime
from efv2_ros.runtimes.libdnn import abi
from efv2_ros.vision.frame import Frame, Header
from efv2_ros.vision.nv12 import Fit, Nv12Converter
from efv2_ros.vision.pixels import PIXEL_FORMATS

ALL = ("libdnn", "hbm", "hobot_dnn")
LAYOUTS: tuple[tuple[dict[str, int], tuple[str, ...]], ...] = (
    ({}, ALL),
    ({"pitch": 256}, ("libdnn",)),
    ({"layout": 0, "pitch": 96}, ("libdnn",)),
    ({"input": 2}, ("libdnn",)),
    ({"input": 2, "pitch": 128}, ("libdnn",)),
    ({"pad": 8}, ("libdnn",)),
    ({"rank": 2, "pad": 8, "strides": 2}, ("libdnn",)),
    ({"output": standins.S32, "per_class": 1}, ("libdnn",)),
    ({"output": standins.S16, "pad": 4}, ("libdnn",)),
    ({"output": standins.S8, "zero_point": 3}, ("libdnn",)),
    ({"strides": 0, "pad": 16}, ("libdnn",)),
)
"""Layouts of a model's tensors, and the runtimes that take them."""

LIBRARY = Path(os.environ[standins.LIBRARY_VARIABLE])
CLASSES = 10
SLOTS = 3
SWAPS = 10


class Tour:
    """The calls, and what came of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.images = standins.images(SLOTS, SIDE, SIDE, seed)
        self.calls = 0
        self.failures: list[str] = []

    def run(self, rounds: int) -> dict[str, Any]:
        """Do everything so many times, and say what came of it."""
        controls = standins.Controls(LIBRARY)
        for _ in range(rounds):
            for layout, runtimes in LAYOUTS:
                path = standins.bin_model(
                    self.folder / "model.bin", classes=CLASSES, width=SIDE, height=SIDE, **layout
                )
                for name in runtimes:
                    if name != "hobot_dnn" or int(np.__version__.split(".")[0]) < 2:
                        self._use(path, name, exact="output" not in layout)
            self._swap()
        self.failures += misuse(controls)
        figures = {"rounds": rounds, "layouts": len(LAYOUTS), "inferences": controls["inferences"]}
        return {"calls": self.calls, "failures": self.failures[:10], "figures": figures}

    def _use(self, path: Path, name: str, *, exact: bool) -> None:
        options = RunOptions(slots=SLOTS)
        runtime = open_runtime(path, ImageInput(SIDE, SIDE), name, options)
        try:
            with ThreadPoolExecutor(SLOTS) as pool:
                answers = list(pool.map(runtime.infer, self.images))
            for image, answer in zip(self.images, answers, strict=True):
                wanted = standins.logits(image, CLASSES)
                self.calls += 1
                if exact and not np.allclose(answer, wanted, atol=1e-4):
                    self.failures.append(f"{name}: {answer} instead of {wanted}")
            self._write(runtime)
        finally:
            runtime.close()

    def _write(self, runtime: Runtime) -> None:
        """Convert an image of each encoding into a slot, and run the model on it."""
        for encoding, pixels in PIXEL_FORMATS.items():
            width, height = (2 * self.random.randint(2, 60) for _ in range(2))
            rows = height * 3 // 2 if pixels.kind == "yuv420" else height
            step = width * pixels.channels
            data = np.frombuffer(self.random.randbytes(rows * step), np.uint8)
            frame = Frame(Header(), encoding, data, height, width, step)
            fit: Fit = self.random.choice(get_args(Fit))
            converter = Nv12Converter(SIDE, SIDE, fit=fit, antialias=self.random.random() < 0.5)
            with runtime.slot() as slot:
                converter.convert_into(frame, slot.nv12)
                slot.commit()
                slot.infer()
            self.calls += 1

    def _swap(self) -> None:
        """Swap models while images are classified."""
        images = Images(8)
        request = ModelRequest(
            "one", catalog_file=str(catalog(self.folder)), runtime="libdnn", slots=2
        )
        views = {ONLY_CAMERA: ViewOptions(fit="stretch", top_k=3)}

        def compare(item: Any, outcome: Any, waited: float) -> None:
            number = item.frame.header.nanosec
            right = not isinstance(outcome, Exception) and any(
                outcome.prediction.class_ids == answers[number % 8].classes
                for answers in images.answers.values()
            )
            self.calls += 1
            if not right:
                self.failures.append(f"image {number} was answered with {outcome}")

        engine = Engine(request, views, compare, policy="all")
        for swap in range(SWAPS):
            done = threading.Event()
            other = ModelRequest(
                ("two", "one")[swap % 2], catalog_file=request.catalog_file, runtime="libdnn",
                slots=2,
            )  # fmt: skip
            engine.change(other, views, lambda error, done=done: done.set())
            number = 0
            while not done.is_set() or number < 10:
                engine.submit(image_frame(images.message(number % 1000)))
                number += 1
        engine.drain(30.0)
        engine.close()


def main() -> None:
    rounds, seed = map(int, sys.argv[1:])
    abi.LIBRARIES = (str(LIBRARY),)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(Tour(Path(folder), seed).run(rounds)))


if __name__ == "__main__":
    main()
