"""Watches one classifier over ROS: what cameras it has, what it reports, what it is told to do."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool
from vision_msgs.msg import LabelInfo

from efv2_ros.web.eyes import TYPES
from efv2_ros.web.hub import ControlError, Interval, Report
from efv2_ros.web.results import Results
from efv2_ros.web.status import Diagnostics, Facts, View, describe

_RESULT_TYPE = "vision_msgs/msg/Classification"
_RESULT_TOPIC = "/classification"

_STEP_S = 0.05
_LOOK_AROUND_S = 1.0
"""Time between two looks at the ROS graph."""

_LOG_S = 10.0
"""Shortest time between two reports of an error."""


class _Change(NamedTuple):
    name: str
    value: Any
    answer: Future[str]


class Watcher:
    """The source of everything but the pictures; see `hub.Source`.

    `run` is for a thread of its own, which alone talks to ROS; all else may be called in another.

    Args:
        node: A node of its own.
        classifier: Full name of the classifier's node.
        sizes: Models that the page offers; empty if it may change nothing.
        faults: Returns why the pictures of a camera cannot be shown, by its name.
    """

    def __init__(
        self,
        node: Node,
        classifier: str,
        *,
        sizes: Sequence[str] = (),
        faults: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._node, self._classifier = node, classifier
        self._sizes, self._faults = sizes, faults
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._diagnostics = Diagnostics(classifier)
        self._is_watched = self._is_there = False
        self._names: dict[str, str] = {}
        self._views: dict[str, View] = {}
        self._results: dict[str, Results] = {}
        self._model_size = ""
        self._next_look = 0.0
        self._asked: Any = None
        self._changes: queue.SimpleQueue[_Change] = queue.SimpleQueue()
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnostics.update, 10)
        node.create_subscription(LabelInfo, f"{classifier}/label_info", self._on_labels, latched)
        self._clients: dict[str, Client] = {}
        if sizes:
            self._clients = {
                name: node.create_client(kind, f"{classifier}/{name}")
                for name, kind in (
                    ("set_enabled", SetBool),
                    ("set_parameters", SetParameters),
                    ("get_parameters", GetParameters),
                )
            }

    def watch(self, on: bool) -> None:
        """See `hub.Source.watch`."""
        self._is_watched = on

    def collect(self) -> Report:
        """See `hub.Source.collect`."""
        views, results = self._views, self._results
        status = describe(
            Facts(
                node=self._classifier,
                is_there=self._is_there,
                diagnostics=self._diagnostics,
                views=views,
                faults=self._faults(),
                sizes=self._sizes,
                model_size=self._model_size,
            )
        )
        names = self._names
        return Report(
            status,
            {
                name: results[name].collect(names) if name in results else Interval(0)
                for name in sorted(views)
            },
        )

    def change(self, name: str, value: Any) -> Future[str]:
        """See `hub.Source.change`."""
        answer: Future[str] = Future()
        self._changes.put(_Change(name, value, answer))
        return answer

    def wanted_views(self) -> Mapping[str, View]:
        """Where the images of each camera are; nothing while nobody looks."""
        if not self._is_watched:
            return {}
        return {name: view for name, view in self._views.items() if view.type_name in TYPES}

    def run(self, stop: threading.Event) -> None:
        """Talk to ROS until `stop` is set."""
        while not stop.is_set():
            try:
                self._step()
            except Exception as error:  # nothing that others publish may end the page
                self._node.get_logger().warning(
                    f"{type(error).__name__}: {error}", throttle_duration_sec=_LOG_S
                )

    def close(self) -> None:
        """Unsubscribe and destroy the node; to be called once `run` has ended."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _step(self) -> None:
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_AROUND_S
            self._look_around()
        self._subscribe()
        self._ask()
        self._executor.spin_once(timeout_sec=_STEP_S)

    def _on_labels(self, message: LabelInfo) -> None:
        self._names = {str(each.class_id): each.class_name for each in message.class_map}

    # The ROS graph

    def _look_around(self) -> None:
        """Find the node, its cameras and the topics of their images."""
        topics = dict(self._node.get_topic_names_and_types())
        self._is_there = self._classifier in {
            f"{namespace.rstrip('/')}/{name}"
            for name, namespace in self._node.get_node_names_and_namespaces()
        }
        if not self._is_there:
            return  # its cameras are kept until it comes back
        images = self._image_topics()
        cameras = self._cameras(topics) | self._diagnostics.cameras()
        self._views = {name: self._view(name, topics, images, cameras) for name in cameras}
        if self._is_watched and self._clients:
            self._ask_model_size()

    def _cameras(self, topics: Mapping[str, Sequence[str]]) -> set[str]:
        """Names of the cameras whose results are published; our own subscriptions do not count."""
        return {
            topic[len(self._classifier) : -len(_RESULT_TOPIC)].lstrip("/")
            for topic, types in topics.items()
            if _RESULT_TYPE in types
            and topic.startswith(f"{self._classifier}/")
            and topic.endswith(_RESULT_TOPIC)
            and self._node.count_publishers(topic) > 0
        }

    def _image_topics(self) -> dict[str, str]:
        """Topics of images that the classifier subscribes to, and their types."""
        namespace, _, name = self._classifier.rpartition("/")
        try:
            found = self._node.get_subscriber_names_and_types_by_node(name, namespace or "/")
        except RuntimeError:  # rclpy's NodeNameNonExistentError, which Humble does not export
            return {}
        return {topic: kind for topic, types in found for kind in types if kind in TYPES}

    def _view(
        self,
        camera: str,
        topics: Mapping[str, Sequence[str]],
        images: Mapping[str, str],
        cameras: set[str],
    ) -> View:
        """Find where a camera's images are; keep what was known, as while it is disabled."""
        topic = self._diagnostics.topic(camera)
        if not topic and len(images) == len(cameras) == 1:
            (topic,) = images
        if not topic:
            return self._views.get(camera, View())
        kinds = [each for each in topics.get(topic, ()) if each in TYPES]
        return View(topic, images.get(topic) or next(iter(kinds), ""))

    def _subscribe(self) -> None:
        """Subscribe to the results of all cameras while somebody looks."""
        wanted = set(self._views) if self._is_watched else set()
        if wanted == self._results.keys():
            return
        kept = {name: each for name, each in self._results.items() if name in wanted}
        gone = [each for name, each in self._results.items() if name not in wanted]
        for name in wanted - kept.keys():
            prefix = f"{self._classifier}/{name}" if name else self._classifier
            kept[name] = Results(self._node, prefix)
        self._results = kept
        for each in gone:
            each.close()

    # Requests

    def _ask(self) -> None:
        """Send the changes that were asked for to the classifier."""
        while True:
            try:
                change = self._changes.get_nowait()
            except queue.Empty:
                return
            is_switch = change.name == "enabled"
            client = self._clients["set_enabled" if is_switch else "set_parameters"]
            if not client.service_is_ready():
                _answer(change.answer, False, f"{self._classifier} is not there")
                continue
            if is_switch:
                request = SetBool.Request(data=change.value)
            else:
                parameter = Parameter(change.name, value=change.value).to_parameter_msg()
                request = SetParameters.Request(parameters=[parameter])
            client.call_async(request).add_done_callback(
                lambda call, answer=change.answer: _pass_on(call.result(), answer)
            )

    def _ask_model_size(self) -> None:
        client = self._clients["get_parameters"]
        if self._asked is not None and not self._asked.done():
            client.remove_pending_request(self._asked)  # of a node that has gone
        if client.service_is_ready():
            self._asked = client.call_async(GetParameters.Request(names=["model_size"]))
            self._asked.add_done_callback(self._on_model_size)

    def _on_model_size(self, call: Any) -> None:
        values = call.result().values
        self._model_size = values[0].string_value if values else ""


def _pass_on(response: Any, answer: Future[str]) -> None:
    """Give the classifier's answer to whoever asked."""
    if isinstance(response, SetBool.Response):
        _answer(answer, response.success, response.message)
    else:
        (result,) = response.results
        _answer(answer, result.successful, result.reason or "done")


def _answer(answer: Future[str], is_done: bool, text: str) -> None:
    if not answer.set_running_or_notify_cancel():
        return  # nobody waits for it any more
    if is_done:
        answer.set_result(text)
    else:
        answer.set_exception(ControlError(text))
