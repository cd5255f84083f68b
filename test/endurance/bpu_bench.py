"""A classifier over the stand-in BPU, numbered images for it, and its answers compared."""

from __future__ import annotations

import json
import struct
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import standins
from live import counts, memory_mib, running
from rclpy.serialization import deserialize_message, serialize_message
from talker import SOON, Talker
from vision_msgs.msg import Classification

from efv2_ros.node.conversions import image_message
from efv2_ros.vision.frame import Frame, Header

SIDE = 64
NETWORKS = {"one": 100, "two": 120}
"""Number of classes of each network; it decides the weights, and so the answers."""

_NONE = "none"
_TOP_K = 3
_PER_SECOND = 1000
"""Images that have the same second in their stamps."""

GROWTH_MIB = 8.0
"""Memory that a classifier may take on in the last nine tenths of a run."""


class Images:
    """NV12 images of which each has another answer; they come in turn.

    Attributes:
        nv12: The images.
        answers: For each network, the best classes and their scores, one entry for each image.
    """

    def __init__(self, count: int = 32) -> None:
        self.nv12 = standins.images(count, SIDE, SIDE)
        self.answers = {
            name: [_answer(standins.logits(each, classes)) for each in self.nv12]
            for name, classes in NETWORKS.items()
        }
        everything = [answer for answers in self.answers.values() for answer in answers]
        for n, answer in enumerate(everything):
            if any(_alike(answer, other) for other in everything[:n]):
                raise ValueError("two images have the same answer")
        self._bodies = [_serialized(each)[12:] for each in self.nv12]
        self._start = _serialized(self.nv12[0])[:4]

    def message(self, number: int) -> bytes:
        """The image of a number as a serialized Image; its stamp tells the number."""
        stamp = struct.pack("<iI", 1 + number // _PER_SECOND, number % _PER_SECOND)
        return self._start + stamp + self._bodies[number % len(self.nv12)]


def number_of(sec: int, nanosec: int) -> int:
    """The number of the image that has this stamp."""
    return (sec - 1) * _PER_SECOND + nanosec


def _serialized(nv12: np.ndarray) -> bytes:
    frame = Frame(Header(frame_id="camera"), "nv12", nv12.reshape(-1), SIDE, SIDE, SIDE)
    return bytes(serialize_message(image_message(frame)))


class Answer(NamedTuple):
    """The best classes of an image, and their scores."""

    classes: tuple[int, ...]
    scores: tuple[float, ...]


def _answer(logits: np.ndarray) -> Answer:
    best = np.argsort(logits)[::-1][:_TOP_K]
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    return Answer(tuple(best.tolist()), tuple(scores[best].tolist()))


def _alike(one: Answer, other: Answer) -> bool:
    return one.classes == other.classes and np.allclose(one.scores, other.scores, rtol=1e-4)


class Results:
    """The answers of a classifier, in the order of their arrival. Thread-safe.

    Attributes:
        numbers: The number of the image of each.
        networks: The network that gave each.
        wrong: A sentence for each result that is no network's answer to its image.
    """

    def __init__(self, images: Images) -> None:
        self.numbers = array("q")
        self.networks: list[str] = []
        self.wrong: list[str] = []
        self._images = images
        self._known: dict[bytes, tuple[str, int]] = {}

    def take(self, message: bytes) -> None:
        """Take a serialized Classification."""
        number, content = number_of(*struct.unpack_from("<iI", message, 4)), message[12:]
        if content not in self._known:
            answer = _read(message)
            for network, answers in self._images.answers.items():
                for image, expected in enumerate(answers):
                    if _alike(answer, expected):
                        self._known[content] = network, image
        network, image = self._known.get(content, (_NONE, -1))
        if image != number % len(self._images.nv12):
            self.wrong.append(f"image {number} was answered with {_read(message)}")
        self.numbers.append(number)
        self.networks.append(network)

    @property
    def last(self) -> int:
        """Number of the last image that has a result; -1 before the first."""
        return self.numbers[-1] if self.numbers else -1

    def failures(self, networks: Collection[str]) -> list[str]:
        """What is wrong with the results, each one for itself and in their order.

        Args:
            networks: Those that were in use.
        """
        steps = zip(self.numbers, self.numbers[1:], strict=False)
        late = [f"image {b} has its result after {a}" for a, b in steps if b <= a]
        others = set(self.networks) - {*networks, _NONE}
        unused = [f"network {name} answered, which was not in use" for name in others]
        return shortened(self.wrong) + shortened(late) + unused


def _read(message: bytes) -> Answer:
    results = deserialize_message(message, Classification).results
    return Answer(
        tuple(int(each.class_id) for each in results), tuple(each.score for each in results)
    )


def shortened(sentences: Sequence[str], most: int = 3) -> list[str]:
    """The first sentences, and how many more there are."""
    more = len(sentences) - most
    return [*sentences[:most], *([f"... and {more} more like this"] if more > 0 else [])]


class Stream:
    """Publishes images in a thread of its own, at a steady rate; a context manager.

    Attributes:
        sent: How many images were published: the number of the next one.
        before: What the classifier had counted before.
    """

    def __init__(self, bench: Bench, rate_hz: float = 100.0) -> None:
        self.sent = 0
        self.before = counts(bench.talker)
        self._bench, self._period_s = bench, 1 / rate_hz
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Publish no more."""
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ends.wait(max(0.0, due - time.monotonic())):
            self._bench.publish(self.sent)
            self.sent += 1
            due += self._period_s


class Held(NamedTuple):
    """What a classifier's process holds.

    Attributes:
        mib: Memory of its own, in MiB.
        threads: Number of threads.
        files: Number of open files.
        memories: Number of the BPU's memories.
        models: Number of models on the BPU.
    """

    mib: float
    threads: int
    files: int
    memories: int
    models: int

    def growth(self, later: Held) -> list[str]:
        """A sentence for each thing of which the process held more later."""
        found = []
        if later.mib > self.mib + GROWTH_MIB:
            found.append(f"memory grew from {self.mib:.1f} to {later.mib:.1f} MiB")
        for name in self._fields[1:]:
            before, after = getattr(self, name), getattr(later, name)
            if after > before:
                found.append(f"{name} grew from {before} to {after}")
        return found


@dataclass(frozen=True)
class Bench:
    """A classifier over the stand-in BPU.

    Attributes:
        talker: Talks to the classifier.
        numbers: Settings and counters of its BPU.
        images: The images that `publish` publishes.
        results: What came of them.
    """

    talker: Talker
    numbers: standins.Numbers
    images: Images
    results: Results
    _take: Callable[[], Any]

    def publish(self, number: int) -> None:
        """Publish the image of this number."""
        self.talker.images.publish(self.images.message(number))

    def take(self) -> bool:
        """Take a result that has arrived, without an executor; False if there is none."""
        taken = self._take()
        if taken is None:
            return False
        self.results.take(taken[0])
        return True

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Take messages until `condition` holds; False if it never does."""
        return self.talker.spin_until(condition, SOON)

    def held(self) -> Held:
        """What the classifier's process holds now."""
        return held(self.talker.process.pid, self.numbers)

    def failures(self, networks: Collection[str] = ("one",)) -> list[str]:
        """What is wrong with the results of these networks, and with the use of BPU memory."""
        return self.results.failures(networks) + misuse(self.numbers)


def held(pid: int, numbers: standins.Numbers | standins.Controls) -> Held:
    """What a process holds now, whose stand-in has these numbers."""
    process = Path(f"/proc/{pid}")
    threads, files = (sum(1 for _ in (process / name).iterdir()) for name in ("task", "fd"))
    return Held(memory_mib(pid), threads, files, numbers["memories"], numbers["models"])


def misuse(numbers: standins.Numbers | standins.Controls) -> list[str]:
    """A sentence for each way in which the BPU's memory was misused."""
    meanings = {
        "wild_writes": "tasks whose memory was freed before they ended",
        "reused_memory": "tasks whose memory had a task already",
        "overruns": "writes beyond the end of a memory",
    }
    return [f"{numbers[name]} {meaning}" for name, meaning in meanings.items() if numbers[name]]


@contextmanager
def bench(parameters: dict[str, Any] | None = None, **settings: int) -> Iterator[Bench]:
    """Start a classifier of `NETWORKS` over the stand-in BPU, which classifies every image.

    Args:
        parameters: Further parameters of the classifier.
        settings: Of the stand-in; see `libdnn.c`.
    """
    images = Images()
    results = Results(images)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = folder / "numbers"
        own = {
            "runtime": "libdnn", "fit": "stretch", "top_k": _TOP_K, "queue_policy": "all",
            "catalog_file": str(catalog(folder)), "model_size": "one", "diagnostics_period": 0.2,
        }  # fmt: skip
        environment = standins.environment(numbers=numbers, **settings)
        with running({**own, **(parameters or {})}, environment=environment, depth=1000) as talker:
            topic = f"{talker.classifier}/classification"
            for each in [each for each in talker.node.subscriptions if each.topic_name == topic]:
                talker.node.destroy_subscription(each)  # which reads each message
            subscription = talker.node.create_subscription(
                Classification, topic, results.take, 1000, raw=True
            )
            own = Bench(
                talker, standins.Numbers(numbers), images, results,
                lambda: subscription.handle.take_message(Classification, True),
            )  # fmt: skip
            _connect(own)
            yield own


def _connect(bench: Bench) -> None:
    """Wait until results arrive, then forget them."""

    def answered() -> bool:
        bench.publish(0)
        bench.talker.spin_for(0.1)
        return bool(bench.results.numbers)

    if not bench.wait(answered):
        raise RuntimeError(f"no results: {bench.talker.process.stop()}")
    bench.talker.spin_for(0.5)
    del bench.results.numbers[:], bench.results.networks[:]


def catalog(folder: Path) -> Path:
    """Write the models of `NETWORKS` and a catalog of them; return its path."""
    models = {}
    for name, classes in NETWORKS.items():
        standins.bin_model(folder / f"{name}.bin", classes=classes, width=SIDE, height=SIDE)
        labels = folder / f"{name}.txt"
        labels.write_text("".join(f"{name} {n}\n" for n in range(classes)))
        models[name] = {
            "input": {"height": SIDE, "width": SIDE}, "classes": classes, "labels": labels.name,
            "files": {"bin": f"{name}.bin"},
        }  # fmt: skip
    path = folder / "catalog.json"
    path.write_text(json.dumps({"models": models}))
    return path
