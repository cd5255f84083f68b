"""Cameras that misbehave: they change midway, or they are killed while they publish."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import levels
import numpy as np
from live import memory_mib, running, settled, unlikely
from mounts import Disk, in_own_mounts
from rows import Length, Row
from sensor_msgs.msg import Image
from talker import SOON, Talker
from tiny_models import projection

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import Model, load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.client.status import Counts
from efv2_ros.node import conversions
from efv2_ros.vision.frame import FrameError
from efv2_ros.vision.geometry import Roi
from efv2_ros.vision.pixels import PIXEL_FORMATS

_SIZES = ((32, 24), (64, 48), (97, 33), (160, 120), (320, 240), (641, 481), (1280, 720), (2, 2))
_ROI = Roi(16, 8, 96, 64)
"""Lies outside of the smallest sizes."""

_LONGEST_RUN = 4
"""Images in a row of one size and encoding."""


def changing_camera(length: Length) -> Row:
    """Send images whose size and encoding change every few images, of noise.

    All encodings and eight sizes, some of which an encoding cannot have, go through two
    classifiers; one looks at a part of the image that lies outside of the small ones.

    Failures: an image whose result differs by a bit from that of a classifier which was made for
    it alone; an image without a result, unless that classifier cannot read it either, for a cause
    that the node's diagnostics name; counts that do not add up.
    """
    row = Row("camera that changes size and encoding", "images")
    random = length.random("changing_camera")
    with tempfile.TemporaryDirectory() as folder:
        path = str(projection(Path(folder, "model.onnx"), classes=100))
        with load_model(ModelRequest(model_path=path)) as model:
            for parameters, view in (
                ({}, ViewOptions()),
                ({"roi": ",".join(map(str, _ROI)), "fit": "letterbox"},
                 ViewOptions(roi=_ROI, fit="letterbox")),
            ):  # fmt: skip
                node = {"model_path": path, "queue_policy": "all", **parameters}
                with running(node) as talker:
                    images = length.count(3_000, least=40)
                    _send_changing(talker, row, random, images, model, view)
    return row


def _send_changing(
    talker: Talker, row: Row, random: Random, count: int, model: Model, view: ViewOptions
) -> None:
    expected: dict[int, list[tuple[str, float]]] = {}
    drops: Counter[str] = Counter()
    runs = (
        (encoding, size)
        for encoding, size in iter(
            lambda: (random.choice(sorted(PIXEL_FORMATS)), random.choice(_SIZES)), None
        )
        for _ in range(random.randint(1, _LONGEST_RUN))
    )
    for number, (encoding, (width, height)) in enumerate(itertools.islice(runs, count), start=1):
        image = _noise(number, encoding, width, height, random)
        try:
            classifier = Classifier(model, view)
            prediction = classifier.classify(conversions.frame_from_image(image)).prediction
            expected[number] = [
                (str(each), score) for each, score in zip(*prediction, strict=True)
            ]
        except FrameError as error:
            drops[error.fault] += 1
        talker.images.publish(image)
        talker.spin_until(lambda: len(talker.results) >= len(expected), SOON)
    reported = settled(talker, count)
    row.count += reported.received
    for result in talker.results:
        number = result.header.stamp.sec
        found = [(each.class_id, each.score) for each in result.results]
        if expected.pop(number, None) != found:
            row.failures.append(f"image {number} has another result than of its own classifier")
    if expected:
        row.failures.append(f"no result of the images {sorted(expected)[:10]}")
    if reported != Counts(count, count - drops.total(), dict(drops)):
        row.failures.append(f"{reported} of {count} images, of which {dict(drops)} are unreadable")
    row.failures += unlikely(talker)
    for cause, images in drops.items():
        before = int(row.figures.get(f"dropped: {cause}", 0))
        row.figures[f"dropped: {cause}"] = str(before + images)
    row.figures["encodings"] = str(len(PIXEL_FORMATS))


def _noise(number: int, encoding: str, width: int, height: int, random: Random) -> Image:
    """An image of coarse noise, in rows that may have padding."""
    pixels = PIXEL_FORMATS[encoding]
    rows = height * 3 // 2 if pixels.kind == "yuv420" else height
    step = width * pixels.channels + random.choice((0, 0, 5))
    values = np.random.default_rng(number).integers(0, 256, (rows // 16 + 1, step // 16 + 1))
    data = np.kron(values, np.ones((16, 16)))[:rows, :step].astype(np.uint8)
    image = Image(width=width, height=height, step=step, encoding=encoding)
    image.header.stamp.sec = number
    image.data = array("B", data.tobytes())
    return image


MOST_KEPT_MIB = 256
"""Freed memory that malloc may keep by `node/malloc.py`. Discovery's small buffers take a little
of the room of a freed image, and the next image no longer fits there."""


@in_own_mounts
def killed_publishers(length: Length) -> Row:
    """Kill a publisher at a random moment while it publishes, and start the next one.

    The publishers send images of 0.9, 2.8 and 6.2 MB as fast as they can, reliable or best
    effort, through shared memory for images or through Fast DDS's default; each is killed up to
    half a second after its first result. Every image is of one grey, which its stamp tells and its
    class too; an image with two greys has a class of its own.

    Failures: a publisher without a result in 30 s; a result that says that the image was torn, or
    of another grey than its stamp tells; a drop for another cause than a newer image; the
    classifier's own memory grown by more than `MOST_KEPT_MIB` from the tenth publisher to the
    last.
    """
    row = Row("publisher killed while it publishes", "publishers")
    random = length.random("killed_publishers")
    with tempfile.TemporaryDirectory() as folder:
        # What killed publishers leave in shared memory ends with this disk.
        memory = Disk(Path("/dev/shm"), 2**30)
        try:
            _kill_publishers(row, Path(folder), memory, random, length.count(45, least=2))
        finally:
            memory.unmount()
    return row


def _kill_publishers(row: Row, folder: Path, memory: Disk, random: Random, count: int) -> None:
    node = {"model_path": str(levels.levels_model(folder / "model.onnx")), **levels.PARAMETERS}
    waits, own_mib = [], []
    with running(node) as talker:
        row.failures += _tells_torn_images(talker)
        for number in range(1, count + 1):
            size = random.choice(((640, 480), (1280, 720), (1920, 1080)))
            how = random.choice(("reliable", "best_effort"))
            before = memory.files()
            with camera(talker.images.topic_name, number, size, how) as process:
                begin = time.monotonic()
                if not talker.spin_until(partial(is_from, talker, number), SOON):
                    row.failures.append(f"no result of publisher {number}: {how} {size}")
                waits.append(time.monotonic() - begin)
                talker.spin_for(random.uniform(0.0, 0.5))
                process.kill()
            for each in memory.files() - before:
                memory.remove(memory.folder / each)
            own_mib.append(memory_mib(talker.process.pid))
            row.count += 1
        talker.spin_for(0.5)
        reported = settled(talker, 0)
        row.failures += unlikely(talker)
        results = len(talker.results)
        row.failures += levels.wrong(talker.results)
        if set(reported.drops) - {"superseded"}:
            row.failures.append(f"dropped for other causes: {reported.drops}")
        grown = own_mib[-1] - own_mib[min(10, count) - 1]
        if grown > MOST_KEPT_MIB:
            row.failures.append(f"the classifier's memory grew by {grown:.0f} MiB")
        row.figures |= {
            "images": str(reported.received),
            "results": str(results),
            "longest wait for the first result": f"{max(waits):.2f} s",
            "memory grown by": f"{grown:.1f} MiB",
        }


def _tells_torn_images(talker: Talker) -> list[str]:
    """Send an image whose last rows are of the next one; say so unless its class tells."""
    rows = np.full((480, 640, 3), levels.grey(levels.level(0)), np.uint8)
    rows[-10:] = levels.grey(levels.level(1))
    talker.images.publish(
        Image(height=480, width=640, step=1920, encoding="bgr8", data=array("B", rows.tobytes()))
    )
    talker.wait_for_results(1)
    (torn,) = talker.results
    talker.results.clear()
    if int(torn.results[0].class_id) == levels.LEVELS:
        return []
    return [f"a torn image is not told by its class: {torn.results}"]


def is_from(talker: Talker, number: int) -> bool:
    """Whether the newest result is of an image of this publisher."""
    return bool(talker.results) and talker.results[-1].header.stamp.sec == number


@contextmanager
def camera(
    topic: str, number: int, size: tuple[int, int], reliability: str
) -> Iterator[subprocess.Popen[str]]:
    """A camera in a process of its own, which publishes by now."""
    command = [sys.executable, levels.__file__, topic, number, *size, reliability]
    with subprocess.Popen(
        [str(each) for each in command], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("the publisher does not start")
            yield process
        finally:
            process.kill()
