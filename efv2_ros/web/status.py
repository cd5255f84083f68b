"""What the page says of a classifier, made of its diagnostics: state, problems, counts, board."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from efv2_ros.client.status import counts_of, values

_STREAM = "stream"
"""Task of the image stream; with several cameras, `left stream` is that of the camera `left`."""

_SHORTEST_SILENCE_S = 5.0
"""Time without a report after which a classifier is silent, if it reports once a second."""

_LEVELS = {
    DiagnosticStatus.OK: "note",
    DiagnosticStatus.WARN: "warning",
    DiagnosticStatus.ERROR: "error",
    DiagnosticStatus.STALE: "warning",
}

_STATES = {
    "unconfigured": "the node is unconfigured: it has no model loaded",
    "configuring": "the node loads its model",
    "inactive": "the node is inactive and takes none: ros2 lifecycle set {node} activate",
    "finalized": "the node has been shut down",
    "disabled": "classification is switched off: the service {node}/set_enabled switches it on",
}
"""What the states of a stream in which no images are expected mean."""


class View(NamedTuple):
    """Where a camera's images are.

    Attributes:
        topic: Full name of the topic; empty if not known.
        type_name: Type of its messages; empty if not known.
    """

    topic: str = ""
    type_name: str = ""


class Diagnostics:
    """The newest report of one classifier, and how long ago it came.

    Args:
        classifier: Full name of the node.
        clock: Time in seconds.
    """

    def __init__(self, classifier: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = classifier.lstrip("/")
        self._clock = clock
        self._at: float | None = None
        self._period_s = 0.0
        self.statuses: Mapping[str, DiagnosticStatus] = {}

    def update(self, array: DiagnosticArray) -> None:
        """Take a message of /diagnostics, which may be another node's."""
        own: dict[str, DiagnosticStatus] = {}
        for status in array.status:
            node, _, task = status.name.partition(": ")
            if node == self._node:
                own[task] = status
        if not any(stream_camera(task) is not None for task in own):
            return
        now = self._clock()
        self._period_s = now - self._at if self._at is not None else 0.0
        self._at = now
        self.statuses = own

    @property
    def silence_s(self) -> float | None:
        """Seconds without a report, if that is longer than usual; None before the first one."""
        if self._at is None:
            return None
        silence_s = self._clock() - self._at
        return silence_s if silence_s > max(_SHORTEST_SILENCE_S, 3 * self._period_s) else 0.0

    def cameras(self) -> set[str]:
        """Names of the cameras that are reported on; the only camera of a node is called ''."""
        return {name for name in map(stream_camera, self.statuses) if name is not None}

    def topic(self, camera: str) -> str:
        """The topic of a camera's images; empty if the classifier does not tell."""
        stream = self.statuses.get(stream_task(camera))
        return values(stream).get("image topic", "") if stream is not None else ""


def stream_camera(task: str) -> str | None:
    """The camera whose stream a task reports on; None for another task."""
    camera, _, last = task.rpartition(" ")
    return camera if last == _STREAM else None


def stream_task(camera: str) -> str:
    """The task that reports on a camera's stream."""
    return f"{camera} {_STREAM}".strip()


@dataclass(frozen=True)
class Facts:
    """All that is known of a classifier.

    Attributes:
        node: Full name of the node.
        is_there: Whether it is part of the ROS graph.
        diagnostics: Its reports.
        views: Where the images of each camera are, by the camera's name.
        faults: Why the pictures of a camera cannot be shown, by its name.
        sizes: Models that the page offers; empty if it may change nothing.
        model_size: The parameter of this name; empty if not known.
    """

    node: str
    is_there: bool
    diagnostics: Diagnostics
    views: Mapping[str, View] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    sizes: Sequence[str] = ()
    model_size: str = ""


def describe(facts: Facts) -> dict[str, Any]:
    """Say in JSON what a page shows of a classifier, apart from its results."""
    statuses = facts.diagnostics.statuses
    model, board = (
        values(statuses[task]) if task in statuses else {} for task in ("model", "board")
    )
    cameras = [_camera(facts, name) for name in sorted(facts.views)]
    return {
        "node": facts.node,
        "problems": _problems(facts),
        "model": model.get("model", ""),
        "runtime": model.get("runtime", ""),
        "board": list(board.items()),
        "cameras": cameras,
        "control": _control(facts, cameras) if facts.sizes else None,
    }


def _problems(facts: Facts) -> list[dict[str, str]]:
    """What is wrong with the node itself; an empty list if nothing is."""
    if not facts.is_there:
        start = "start it with ros2 launch efv2_ros classify.launch.py"
        return [_problem("error", "Node", f"there is no {facts.node}: {start}")]
    silence_s = facts.diagnostics.silence_s
    if silence_s is None:
        return [_problem("note", "Node", f"waiting for the first report of {facts.node}")]
    if silence_s:
        silence = f"{facts.node} has reported nothing for {silence_s:.0f} s"
        return [_problem("error", "Node", silence)]
    return [
        _problem(_LEVELS.get(status.level, "warning"), about, status.message)
        for task, about in (("model", "Model"), ("board", "Board"))
        if (status := facts.diagnostics.statuses.get(task)) is not None
        and status.level != DiagnosticStatus.OK
    ]


def _camera(facts: Facts, name: str) -> dict[str, Any]:
    stream = facts.diagnostics.statuses.get(stream_task(name))
    described: dict[str, Any] = {
        "name": name,
        "topic": facts.views[name].topic,
        "problem": None,
        "rates": [],
        "counts": [],
        "drops": [],
    }
    if stream is None:
        return described
    reported = values(stream)
    described["problem"] = _stream_problem(facts, name, stream)
    described["rates"] = [
        [label, f"{reported[key]} Hz"]
        for key, label in (("input rate (Hz)", "images in"), ("output rate (Hz)", "results out"))
        if key in reported
    ]
    try:
        counts = counts_of(stream)
    except ValueError:  # of another node with this name
        return described
    described["counts"] = [["received", counts.received], ["classified", counts.classified]]
    described["drops"] = [[cause, count] for cause, count in sorted(counts.drops.items()) if count]
    return described


def _stream_problem(facts: Facts, name: str, stream: DiagnosticStatus) -> dict[str, str] | None:
    if stream.level != DiagnosticStatus.OK:
        return _problem(_LEVELS.get(stream.level, "warning"), "Images", stream.message)
    if stream.message in _STATES:
        return _problem("note", "Images", _STATES[stream.message].format(node=facts.node))
    if stream.message.startswith("waiting"):
        return _problem("note", "Images", stream.message)
    if name in facts.faults:
        return _problem("warning", "Picture", facts.faults[name])
    return None


def _control(facts: Facts, cameras: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    streams = [facts.diagnostics.statuses.get(stream_task(each["name"])) for each in cameras]
    return {
        "sizes": list(dict.fromkeys([*facts.sizes, *filter(None, [facts.model_size])])),
        "model_size": facts.model_size,
        "enabled": not any(each is not None and each.message == "disabled" for each in streams),
    }


def _problem(level: str, about: str, text: str) -> dict[str, str]:
    return {"level": level, "about": about, "text": text}
