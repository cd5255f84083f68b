"""Tasks of a fleet, which run in workers: replay a bag, or a span of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2

from efv2_ros.bags.bag import Bag, Span
from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import Model, find_model, load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.fleet.remote import Copy
from efv2_ros.fleet.sources import version_of
from efv2_ros.replay.offline import replay
from efv2_ros.replay.run import FrameResult, Run
from efv2_ros.workers.lending import Lending


@dataclass(frozen=True)
class Job:
    """What is the same for all bags of a fleet.

    Attributes:
        request: The model.
        view: The handling of each image.
        topic: Topic of the images; may be empty where each bag has only one.
        frame_id: Frame of images without a header.
        chunk: Number of images of a task; longer bags are cut.
    """

    request: ModelRequest
    view: ViewOptions
    topic: str = ""
    frame_id: str = "camera"
    chunk: int = 500


@dataclass(frozen=True)
class Cut:
    """A bag that is long enough for several tasks.

    Attributes:
        topic: Topic of the images.
        images: Their number.
        spans: What to replay, each by a task of its own.
    """

    topic: str
    images: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Replayed:
    """What a task made of a bag, or of a span of it.

    Attributes:
        run: The results, with the labels of the classes that occur.
        problems: What could not be read.
        seconds: How long it took.
        model: SHA-256 digest of the model's file, and the runtime that ran it.
    """

    run: Run
    problems: tuple[str, ...]
    seconds: float
    model: str


def replay_or_cut(location: str, job: Job) -> Replayed | Cut:
    """Replay a bag; if it is long, say how to cut it instead.

    Smoothing looks back, and a damaged bag can only be salvaged as a whole: neither is cut.

    Raises:
        BagError: The bag cannot be read.
        Efv2Error: The model cannot be used.
    """
    with _bag(location) as bag:
        topic = bag.image_topic(job.topic)
        if topic.count > job.chunk and job.view.smoothing == "off":
            spans = bag.spans(topic, job.chunk)
            if len(spans) > 1:
                return Cut(topic.name, topic.count, tuple(spans))
        return _replay(bag, job, topic.name)


def replay_whole(location: str, job: Job) -> Replayed:
    """Replay a bag, however long it is.

    Raises:
        BagError: The bag cannot be read.
        Efv2Error: The model cannot be used.
    """
    with _bag(location) as bag:
        return _replay(bag, job, job.topic)


def replay_span(location: str, job: Job, topic: str, span: Span) -> Replayed:
    """Replay a part of a bag. If it has problems, its results are of no use; see `Bag.messages`.

    Raises:
        BagError: The bag cannot be read.
        Efv2Error: The model cannot be used.
    """
    with _bag(location) as bag:
        return _replay(bag, job, topic, span)


def _replay(bag: Bag, job: Job, topic: str, span: Span | None = None) -> Replayed:
    with _models(_ModelKey(job.request, _digest(job.request))) as model:
        start = time.perf_counter()
        run = replay(
            bag, bag.image_topic(topic), Classifier(model, job.view), slots=job.request.slots,
            frame_id=job.frame_id, span=span,
        )  # fmt: skip
        identity = f"{model.file.sha256} on {run.info['runtime']}"
    occurring = {class_id for frame in run.frames for class_id in frame.prediction.class_ids}
    return Replayed(
        replace(
            run,
            labels={each: label for each, label in run.labels.items() if each in occurring},
            frames=[_without_view(each) for each in run.frames],
        ),
        tuple(bag.problems),
        time.perf_counter() - start,
        identity,
    )


def _without_view(frame: FrameResult) -> FrameResult:
    """Leave out what only annotations need, which no file of a fleet holds."""
    return replace(frame, seen=None)


@contextmanager
def _bag(location: str) -> Iterator[Bag]:
    with _copies(location) as copy, Bag(copy.path) as bag:
        yield bag


_copies = Lending(Copy)
"""The spans of a bag mostly follow each other, so that each process copies a bag once."""


class _ModelKey(NamedTuple):
    """A model, and the digest of its file, which may be another one by the next task."""

    request: ModelRequest
    sha256: str


@dataclass(frozen=True)
class _Found:
    """A model file, its digest, and its size and time of change then."""

    path: Path
    sha256: str
    version: str


_found: dict[ModelRequest, _Found] = {}


def _digest(request: ModelRequest) -> str:
    """Return the digest of a model's file, which is read again only where it changed."""
    known = _found.get(request)
    if known is None or version_of(str(known.path)) != known.version:
        found = find_model(request)
        known = _Found(found.path, found.sha256, version_of(str(found.path)))
        _found[request] = known
    return known.sha256


def _load(key: _ModelKey) -> Model:
    # For images of a model's size, OpenCV's threads cost more than they save.
    cv2.setNumThreads(1)
    return load_model(key.request, pipelined=True)


_models = Lending(_load)
