"""Runs as bags, with the messages and topics that the node publishes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.writer import BagWriter
from efv2_ros.classify.latency import DROPPED_KEY
from efv2_ros.classify.options import NODE
from efv2_ros.classify.postprocess import Prediction
from efv2_ros.messages.message import deserialize, header_message, message, serialize
from efv2_ros.replay.annotations import IMAGE_ANNOTATIONS, image_annotations
from efv2_ros.replay.run import FrameResult, Run, RunError, in_stamp_order, read_jsonl
from efv2_ros.vision.frame import Header

CLASSIFICATION = "vision_msgs/msg/Classification"
LABEL_INFO = "vision_msgs/msg/LabelInfo"
VISION_INFO = "vision_msgs/msg/VisionInfo"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
STRING = "std_msgs/msg/String"

TOPICS = {
    "classification": CLASSIFICATION,
    "vision_info": VISION_INFO,
    "label_info": LABEL_INFO,
    "latency": DIAGNOSTICS,
    "label": STRING,
    "annotations": IMAGE_ANNOTATIONS,
}
"""Message types of a run, by the topics' names below the node's."""

LATCHED = ("vision_info", "label_info")
"""Topics whose durability is transient local."""

_CAUSE = "dropped"
_OK, _WARN = 0, 1  # levels of DiagnosticStatus


def write_results(run: Run, path: Path) -> None:
    """Write a run as a bag, each message at the stamp of its image.

    Raises:
        BagError: The bag exists, or cannot be written; nothing is left of it then.
        MessageError: rosbags is missing.
    """
    bag = BagWriter(path)
    try:
        _write(run, bag)
        bag.close()
    except BaseException:
        bag.discard()
        raise


def _write(run: Run, bag: BagWriter) -> None:
    bag.describe(run.info)
    first = run.frames[0].header if run.frames else Header()
    classes = max(run.labels, default=-1) + 1
    labels = [run.labels.get(class_id, "") for class_id in range(classes)]
    for name, data in (
        ("label_info", _label_info(first, labels, _threshold(run))),
        ("vision_info", _vision_info(first, str(run.info.get("model", "")))),
    ):
        bag.write(f"{NODE}/{name}", TOPICS[name], first.nanoseconds, data, latched=True)
    for frame in run.frames:
        stamp = frame.header.nanoseconds
        if not frame.dropped:
            bag.write(f"{NODE}/classification", CLASSIFICATION, stamp, _classification(frame))
            bag.write(f"{NODE}/label", STRING, stamp, _label(frame, run.labels))
        if frame.seen is not None:
            drawn = image_annotations(frame.header, frame.seen, frame.prediction, run.labels)
            bag.write(f"{NODE}/annotations", IMAGE_ANNOTATIONS, stamp, drawn)
        bag.write(f"{NODE}/latency", DIAGNOSTICS, stamp, _latency(frame))


def _threshold(run: Run) -> float:
    return float(run.info.get("view", {}).get("score_threshold", 0.0))


def _label_info(header: Header, labels: list[str], threshold: float) -> bytes:
    names = [
        message("vision_msgs/msg/VisionClass", class_id=class_id, class_name=name)
        for class_id, name in enumerate(labels)
    ]
    stamp = header_message(header._replace(frame_id=""))
    return serialize(LABEL_INFO, header=stamp, class_map=names, threshold=threshold)


def _vision_info(header: Header, method: str) -> bytes:
    return serialize(
        VISION_INFO,
        header=header_message(header._replace(frame_id="")),
        method=method,
        database_location=f"{NODE}/label_info",
        database_version=1,
    )


def _classification(frame: FrameResult) -> bytes:
    results = [
        message("vision_msgs/msg/ObjectHypothesis", class_id=str(class_id), score=score)
        for class_id, score in zip(*frame.prediction, strict=True)
    ]
    return serialize(CLASSIFICATION, header=header_message(frame.header), results=results)


def _label(frame: FrameResult, labels: Mapping[int, str]) -> bytes:
    best = frame.prediction.class_ids[:1]
    return serialize(STRING, data=labels.get(best[0], "") if best else "")


def _latency(frame: FrameResult) -> bytes:
    """Make a message as on the node's `~/latency`; dropped images have their cause in it."""
    values = {stage: f"{ms:.4f}" for stage, ms in frame.milliseconds.items()}
    if frame.dropped:
        values = {_CAUSE: frame.dropped}
    status = message(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=_WARN if frame.dropped else _OK,
        name=f"{NODE.lstrip('/')}: latency",
        message=frame.reason,
        hardware_id="",
        values=[
            message("diagnostic_msgs/msg/KeyValue", key=key, value=value)
            for key, value in values.items()
        ],
    )
    return serialize(DIAGNOSTICS, header=header_message(frame.header), status=[status])


def read_run(path: Path) -> Run:
    """Read a run from JSON lines, or from a bag of results, written here or recorded live.

    Raises:
        RunError: `path` is neither, or its messages cannot be read as results.
        BagError: The bag cannot be read.
        MessageError: rosbags is missing.
    """
    if not path.exists():
        raise RunError(f"there is no run {path}")
    if path.is_file() and path.suffix not in (".mcap", ".db3", ".zstd"):
        return read_jsonl(path)
    with Bag(path) as bag:
        run = _Reading(bag, _node_of(bag)).run()
        if bag.problems:
            run.info["problems"] = bag.problems
    return run


def _node_of(bag: Bag) -> str:
    found = [each.name for each in bag.topics.values() if each.type_name == CLASSIFICATION]
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise RunError(f"{bag.path} holds no run: topics of {CLASSIFICATION}: {listed}")
    return found[0].rpartition("/")[0]


class _Reading:
    """Builder of a run from messages in any order."""

    def __init__(self, bag: Bag, node: str) -> None:
        self._bag, self._node = bag, node
        self._labels: dict[int, str] = {}
        self._frames: list[FrameResult] = []
        self._stages: dict[Header, dict[str, float]] = {}
        self._counted: Counter[str] = Counter()
        self._before: Counter[str] | None = None
        self._info: dict[str, Any] = {"bag": ""}

    def run(self) -> Run:
        readers = {
            f"{self._node}/classification": self._read_classification,
            f"{self._node}/vision_info": self._read_vision_info,
            f"{self._node}/label_info": self._read_label_info,
            f"{self._node}/latency": self._read_latency,
            "/diagnostics": self._read_diagnostics,
        }
        for each in self._bag.messages(readers):
            try:
                readers[each.topic](deserialize(each.type_name, each.data))
            except Exception as error:  # other programs' messages may hold anything
                raise RunError(
                    f"{self._bag.path} holds no run: a message on {each.topic} cannot be read "
                    f"({error or type(error).__name__})"
                ) from error
        return Run(
            self._info | self._bag.info(),
            self._labels,
            in_stamp_order(
                replace(frame, milliseconds=self._stages.get(frame.header, {}))
                for frame in self._frames
            ),
            dict(self._counted - (self._before or Counter())),
        )

    def _read_classification(self, message: Any) -> None:
        prediction = Prediction(
            tuple(int(each.class_id) for each in message.results),
            tuple(float(each.score) for each in message.results),
        )
        self._frames.append(FrameResult(_plain(message.header), prediction))

    def _read_label_info(self, message: Any) -> None:
        self._labels |= {each.class_id: each.class_name for each in message.class_map}

    def _read_vision_info(self, message: Any) -> None:
        self._info["model"] = message.method

    def _read_latency(self, message: Any) -> None:
        header = _plain(message.header)
        for status in message.status:
            values = {each.key: each.value for each in status.values}
            if _CAUSE in values:
                self._frames.append(
                    FrameResult(header, dropped=values[_CAUSE], reason=status.message)
                )
            else:
                self._stages[header] = {key: float(value) for key, value in values.items()}

    def _read_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == f"{self._node.lstrip('/')}: stream":
                self._counted = Counter(
                    {
                        each.key.removeprefix(DROPPED_KEY): int(each.value)
                        for each in status.values
                        if each.key.startswith(DROPPED_KEY)
                    }
                )
                if self._before is None:  # counted before the first result: other images
                    self._before = Counter() if self._frames else self._counted


def _plain(header: Any) -> Header:
    return Header(header.stamp.sec, header.stamp.nanosec, header.frame_id)
