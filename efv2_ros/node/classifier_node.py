"""The lifecycle node: subscribes to images, publishes what they show. Wiring only."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.timer import Timer
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool
from vision_msgs.msg import Classification, LabelInfo, VisionInfo

from efv2_ros.classifier import Classified, Model, find_model
from efv2_ros.engine import Engine
from efv2_ros.errors import Efv2Error
from efv2_ros.latency import END_TO_END
from efv2_ros.node import messages, parameters
from efv2_ros.node.diagnostics import ModelStatus, Statistics, StreamStatus, diagnostic_array
from efv2_ros.node.parameters import PARAMETERS, Change, Settings
from efv2_ros.node.source import ImageSource
from efv2_ros.runtimes.base import InferenceError
from efv2_ros.vision.annotate import annotate, bgr_frame, to_bgr
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.nv12 import check

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_DRAIN_SECONDS = 5.0

# A stamp that goes back by less than this is a late frame; by more, time started again, as when
# a bag is played in a loop.
_LATE_NANOSECONDS = 1_000_000_000


class ClassifierNode(LifecycleNode):
    """Classifies the images of one topic; topics and parameters are listed in the README."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("efv2_classifier", **node_arguments)
        self._phase = "unconfigured"
        parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._enabled = True
        self._logged: set[str] = set()
        self._newest_stamp: int | None = None
        self._statistics = Statistics()
        self._model_status = ModelStatus()
        self._stream_status = StreamStatus(
            self._statistics, self._stream_state, lambda: self._parameter("stale_after")
        )
        self._source: ImageSource | None = None
        self._announced: tuple[Model, float] | None = None
        self._labels_version = 0

        # Diagnostics speak in every lifecycle state: that a node is not active is news too.
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self._start_timer(self._parameter("diagnostics_period"))
        self._set_enabled = self.create_service(SetBool, "~/set_enabled", self._on_set_enabled)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and create what publishes; FAILURE, with one sentence, when it cannot."""
        try:
            self._settings = parameters.read(self)
            self._engine = Engine(
                self._settings.model_request(),
                self._settings.view_options(),
                self._deliver,
                policy=self._settings.queue_policy,
                superseded=lambda _: self._statistics.dropped("superseded"),
                progress=DownloadLog(self.get_logger()),
            )
        except (Efv2Error, ValueError) as error:
            self._model_status.problem = str(error)
            self.get_logger().error(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self._on_model()
        self._classification = self.create_lifecycle_publisher(
            Classification, "~/classification", 10
        )
        self._vision_info = self.create_lifecycle_publisher(VisionInfo, "~/vision_info", _LATCHED)
        self._label_info = self.create_lifecycle_publisher(LabelInfo, "~/label_info", _LATCHED)
        self._annotated = self.create_lifecycle_publisher(
            Image, "~/image_annotated", qos_profile_sensor_data
        )
        self._phase = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Say what the results will mean, then subscribe."""
        result = super().on_activate(state)
        self._phase = "active"
        self._announced = None
        self._announce(self._engine.classifier.model)
        self._newest_stamp = None
        self._subscribe()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and publish what is still in work."""
        self._unsubscribe()
        self._engine.drain(_DRAIN_SECONDS)
        self._phase = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, whatever the state."""
        self._release()
        self._phase = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after a transition that went wrong."""
        self._release()
        return super().on_error(state)

    def destroy_node(self) -> None:
        """Stop the workers before the entities they publish with are gone."""
        self._release()
        super().destroy_node()

    def _release(self) -> None:
        if self._phase in ("unconfigured", "finalized"):
            return
        self._unsubscribe()
        self._engine.close()
        self._model_status.model = None
        for publisher in (
            self._classification, self._vision_info, self._label_info, self._annotated,
        ):  # fmt: skip
            self.destroy_lifecycle_publisher(publisher)
        self._phase = "unconfigured"

    # One frame's way: message, mailbox, worker, result

    def _on_frame(self, frame: Frame) -> None:
        try:
            check(frame)
            self._check_order(frame.header)
        except FrameError as error:
            self._drop(error)
            return
        self._engine.submit(frame)

    def _check_order(self, header: Header) -> None:
        newest, stamp = self._newest_stamp, header.nanoseconds
        if newest is not None and 0 < newest - stamp < _LATE_NANOSECONDS:
            raise FrameError("stamp", "the image is older than one that was there before it")
        self._newest_stamp = stamp

    def _deliver(self, frame: Frame, outcome: Classified | Exception, waited: float) -> None:
        if isinstance(outcome, Exception):
            self._drop(outcome)
            return
        try:
            self._publish(frame, outcome, waited)
        except Exception as error:
            self._drop(error)

    def _publish(self, frame: Frame, outcome: Classified, waited: float) -> None:
        start = time.perf_counter()
        self._announce(outcome.model)
        self._classification.publish(messages.classification(frame.header, outcome.prediction))
        published = time.perf_counter()

        now = self.get_clock().now().nanoseconds
        self._statistics.classified(now)
        latency = self._statistics.latency
        latency.record("wait", waited)
        latency.record("convert", outcome.convert)
        latency.record("infer", outcome.infer)
        latency.record("postprocess", outcome.postprocess)
        latency.record("publish", published - start)
        age = (now - frame.header.nanoseconds) / 1e9
        if frame.header.nanoseconds and age >= 0:
            latency.record(END_TO_END, age)
        if self._annotated.get_subscription_count():
            self._publish_annotated(frame, outcome)

    def _publish_annotated(self, frame: Frame, outcome: Classified) -> None:
        picture = to_bgr(frame)
        annotate(picture, outcome.lines())
        self._annotated.publish(messages.image(bgr_frame(frame.header, picture)))

    def _drop(self, error: Exception) -> None:
        """Count a frame that got no result; say why, once for each cause."""
        cause: str
        match error:
            case FrameError():
                cause = error.fault
            case InferenceError():
                cause = "infer"
            case _:
                cause = "internal"
        self._statistics.dropped(cause)
        if cause in self._logged:
            return
        self._logged.add(cause)
        detail = "".join(traceback.format_exception(error)) if cause == "internal" else error
        self.get_logger().warning(
            f"dropped a frame ({cause}): {detail}. Further ones are counted in /diagnostics"
        )

    def _announce(self, model: Model) -> None:
        """Publish what class ids mean, when that is not what was said last."""
        announcement = (model, self._settings.score_threshold)
        previous, self._announced = self._announced, announcement
        if previous == announcement:
            return
        if previous is None or previous[0].labels != model.labels:
            self._labels_version += 1
        stamp = self.get_clock().now().to_msg()
        self._label_info.publish(
            messages.label_info(stamp, model.labels, self._settings.score_threshold)
        )
        self._vision_info.publish(
            messages.vision_info(
                stamp, model.name, self._label_info.topic_name, self._labels_version
            )
        )

    # Switching the image stream on and off

    def _subscribe(self) -> None:
        if self._source is None and self._enabled and self._phase == "active":
            self._source = ImageSource(
                self,
                self._settings,
                received=lambda: self._statistics.received(self.get_clock().now().nanoseconds),
                frame=self._on_frame,
                fault=self._drop,
            )

    def _unsubscribe(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        self._enabled = request.data
        if self._enabled:
            self._subscribe()
        else:
            self._unsubscribe()
        response.success = True
        response.message = f"{self._stream_state()}; classification is " + (
            "enabled" if self._enabled else "disabled"
        )
        return response

    def _stream_state(self) -> str:
        return "disabled" if self._phase == "active" and not self._enabled else self._phase

    # Parameters that change while running

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_set_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        changes = {each.name: each.value for each in changed if each.name in PARAMETERS}
        try:
            settings = parameters.read(self, changes)
            if self._phase != "unconfigured":
                self._check_change(settings, changes)
        except (Efv2Error, ValueError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        if "diagnostics_period" in changes:
            self.destroy_timer(self._timer)
            self._timer = self._start_timer(settings.diagnostics_period)
        if self._phase != "unconfigured" and settings != self._settings:
            previous, self._settings = self._settings, settings
            self._engine.change(
                settings.model_request(),
                settings.view_options(),
                lambda error: self._on_changed(previous, settings, error),
            )
        return SetParametersResult(successful=True)

    def _check_change(self, settings: Settings, names: Iterable[str]) -> None:
        for name in names:
            differs = getattr(settings, name) != getattr(self._settings, name)
            if differs and PARAMETERS[name].change is Change.UNCONFIGURED:
                raise ValueError(f"{name} changes {PARAMETERS[name].change.value}")
        request = settings.model_request()
        if request != self._settings.model_request() and not settings.allow_download:
            find_model(request)

    def _on_changed(self, previous: Settings, settings: Settings, error: Exception | None) -> None:
        """A change of model or options took effect, or failed; called beside the executor."""
        if error is None:
            self._on_model()
            if self._phase == "active":
                self._announce(self._engine.classifier.model)
            return
        running = self._engine.classifier.model
        self._model_status.problem = f"{running.name} goes on: {error}"
        self.get_logger().error(self._model_status.problem)
        values = {
            name: getattr(previous, name)
            for name in PARAMETERS
            if getattr(previous, name) != getattr(settings, name)
        }
        if self.executor is not None:
            # Parameters say what is, not what was wished for.
            self.executor.create_task(
                self.set_parameters,
                [Parameter(name, value=value) for name, value in values.items()],
            )

    def _on_model(self) -> None:
        """Tell people about the model that runs from now on."""
        model = self._engine.classifier.model
        if model is self._model_status.model:
            return
        self._model_status.model, self._model_status.problem = model, ""
        self._statistics.latency.clear()
        log = self.get_logger().warning if model.file.untrained else self.get_logger().info
        log(f"running {model.name} on {model.runtime.info.name}, from {model.file.path}")

    # Diagnostics

    def _start_timer(self, period: float) -> Timer:
        return self.create_timer(period, self._on_timer, clock=self._steady)

    def _on_timer(self) -> None:
        if self._source is not None:
            self._source.watch(self._steady.now().nanoseconds / 1e9)
        model = self._model_status.model
        self._diagnostics.publish(
            diagnostic_array(
                self.get_clock().now(),
                self.get_fully_qualified_name().lstrip("/"),
                model.runtime.info.device if model else "",
                [self._stream_status, self._model_status],
            )
        )


class DownloadLog:
    """Logs a download's progress every few seconds."""

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger

    def __call__(self, done: int, total: int | None) -> None:
        """Log how many bytes have arrived."""
        share = f" of {total / 1e6:.1f}" if total else ""
        self._logger.info(
            f"downloading the model: {done / 1e6:.1f}{share} MB", throttle_duration_sec=2.0
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    cv2.setNumThreads(1)  # threads cost more than they bring at the sizes the node works on
    rclpy.init(args=args)
    try:
        node = ClassifierNode()
    except ParameterException as error:
        print(f"efv2_classifier: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    try:
        if node.get_parameter("autostart").value:
            started = node.trigger_configure() == TransitionCallbackReturn.SUCCESS
            if started:
                node.trigger_activate()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut this short
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
