"""Offline replay: every image of a bag through the classifier, without middleware or clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

from efv2_ros.bags.bag import Bag, Span, Topic, Unreadable
from efv2_ros.classify.classifier import Classified, Classifier
from efv2_ros.classify.failures import cause_of, explained
from efv2_ros.classify.pipeline import Pipeline
from efv2_ros.classify.seen import seen
from efv2_ros.replay.run import FrameResult, Run, in_stamp_order
from efv2_ros.vision.frame import Frame, Header

_POLL_S = 0.1

READ = "read"
"""Name of the stage that reads an image from the bag; a live node has none."""


class _Item(NamedTuple):
    """An image in the pipeline; `number` counts the images of the bag, `read` is in seconds."""

    number: int
    frame: Frame
    read: float


class _Stages:
    """The classifier's stages, for items; see `pipeline.Stages`."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.discard, self.work = classifier.discard, classifier.work
        self.finish = classifier.finish

    def prepare(self, item: _Item) -> Any:
        return self._classifier.prepare(item.frame)


def replay(
    bag: Bag,
    topic: Topic,
    classifier: Classifier,
    *,
    slots: int = 1,
    frame_id: str = "camera",
    span: Span | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Classify every image of a topic.

    The results are in the order of the stamps, whatever the order in the bag. `should_stop` or
    KeyboardInterrupt ends the replay with the results so far and adds to the bag's problems.

    Args:
        bag: The bag; its `problems` tell what could not be read.
        topic: A topic that `Bag.image_topic` returned.
        classifier: A classifier whose model was loaded with `pipelined=True`.
        slots: Number of images that the model works on at once.
        frame_id: Frame of images without a header.
        span: Classify the images of this part of the bag only; see `Bag.spans`.
        on_progress: Called with the number of images done.
        should_stop: Polled; ends the replay.
    """
    done: list[tuple[int, FrameResult]] = []

    def add(number: int, result: FrameResult) -> None:
        done.append((number, result))
        on_progress(len(done))

    def deliver(item: _Item, outcome: Classified | Exception, waited: float) -> None:
        if isinstance(outcome, Exception):
            add(item.number, _dropped(item.frame.header, outcome))
            return
        seconds = {
            READ: item.read,
            "wait": waited,
            "convert": outcome.convert,
            "infer": outcome.infer,
            "postprocess": outcome.postprocess,
        }
        milliseconds = {stage: each * 1e3 for stage, each in seconds.items()}
        add(
            item.number,
            FrameResult(
                item.frame.header, outcome.prediction, milliseconds=milliseconds,
                seen=seen(item.frame, outcome.classifier),
            ),
        )  # fmt: skip

    pipeline: Pipeline[_Item, Classified] = Pipeline(
        _Stages(classifier), deliver, slots=slots, policy="all"
    )
    is_complete = False
    try:
        start = time.perf_counter()
        for number, image in enumerate(bag.images(topic, frame_id, should_stop, span=span)):
            read = time.perf_counter() - start
            if isinstance(image, Unreadable):
                add(number, _dropped(image.header, image.error))
            else:
                pipeline.submit(_Item(number, image, read))
            start = time.perf_counter()
        is_complete = not should_stop()
        while is_complete and not pipeline.drain(_POLL_S):
            is_complete = not should_stop()
    except KeyboardInterrupt:
        pass
    finally:
        pipeline.close()
    if not is_complete:
        bag.problems.append("interrupted: the results are those of the images until then")
    results = (result for _, result in sorted(done, key=lambda each: each[0]))
    model, options = classifier.model, classifier.options
    return Run(
        {
            "bag": str(bag.path),
            "topic": topic.name,
            "type": topic.type_name,
            "model": model.name,
            "runtime": f"{model.runtime.info.name} {model.runtime.info.version}".strip(),
            "view": asdict(options) | {"roi": list(options.roi) if options.roi else None},
        },
        dict(enumerate(model.labels)),
        in_stamp_order(results),
    )


def _dropped(header: Header, error: Exception) -> FrameResult:
    return FrameResult(header, dropped=cause_of(error), reason=explained(error))
