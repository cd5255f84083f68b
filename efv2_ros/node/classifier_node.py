"""The classifier: a lifecycle node that subscribes to images and publishes their classes.

This module connects the parts, in the order of the class's sections:

- Lifecycle: transitions create and free an `Engine`, which has the model, and what each `Camera`
  needs. There is one, unless the parameter `cameras` names several.
- The way of a frame: a camera's subscription, the engine, and the same camera, which publishes its
  result or counts it as dropped.
- Enabling and disabling: the service `~/set_enabled`.
- Parameters that change while running: the engine exchanges its model, options or cameras.
- Diagnostics: status tasks, published by a timer.

ROS's callbacks run in the executor's thread, one at a time. The engine delivers results in a
thread of its own, and reports the end of a change in another. `run` ends the program by shutting
the ROS context down; whatever waits here polls `context.ok()`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.timer import Timer
from std_srvs.srv import SetBool

from efv2_ros.classify.classifier import Classified
from efv2_ros.classify.engine import CameraFrame, Engine
from efv2_ros.classify.failures import explained
from efv2_ros.classify.model import Model
from efv2_ros.classify.options import NODE_NAME
from efv2_ros.node.camera import Camera
from efv2_ros.node.diagnostics import BoardStatus, ModelStatus, diagnostic_array
from efv2_ros.node.download_log import DownloadLog
from efv2_ros.node.malloc import keep_memory, return_memory
from efv2_ros.node.options import Settings
from efv2_ros.node.parameter_changes import ParameterChanges
from efv2_ros.node.publishers import ModelPublishers
from efv2_ros.node.repeating import repeating
from efv2_ros.node.running import run
from efv2_ros.node.transports import TRANSPORTS
from efv2_ros.runtimes import board
from efv2_ros.runtimes.base import DeviceLostError
from efv2_ros.vision.frame import Frame

_DRAIN_TIMEOUT_S = 5.0
_POLL_S = 0.2


class ClassifierNode(LifecycleNode):
    """Classifies the images of one camera or of several."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__(NODE_NAME, **node_arguments)
        self._phase = "unconfigured"
        self._engine: Engine | None = None
        self._model_publishers: ModelPublishers | None = None
        self._cameras: dict[str, Camera] = {}
        self._enabled = True
        self._model_status = ModelStatus()
        self._board_status = [BoardStatus()] if board.has_bpu() else []
        self._changes = ParameterChanges(
            self,
            on_applied=self._on_applied,
            on_failed=self._on_failed,
            on_period=self._on_period,
            on_leaving=self._on_leaving,
            on_cameras=self._on_cameras,
        )
        # `destroy_node` uses the attributes above, even if something below fails.
        self._keep_cameras(self._changes.declare())

        # Diagnostics are published in every lifecycle state.
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self._start_timer(self._parameter("diagnostics_period"))
        self._set_enabled = self.create_service(SetBool, "~/set_enabled", self._on_set_enabled)

    # Lifecycle

    def start(self) -> None:
        """Configure and activate, as a lifecycle manager does."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and create the publishers; return FAILURE if that is not possible."""
        self._phase = "configuring"
        try:
            settings = self._changes.read()
            for stream in settings.streams.values():
                TRANSPORTS[stream.transport].message_type()  # raises if its package is missing
            self._keep_cameras(settings.streams)
            # This thread, the executor's, is busy meanwhile.
            with repeating(self._report_safely, settings.diagnostics_period, self.context.ok):
                self._engine = Engine(
                    settings.model,
                    settings.views,
                    self._deliver,
                    policy=settings.queue_policy,
                    on_dropped=self._count_dropped,
                    on_progress=DownloadLog(self.get_logger()),
                    should_stop=lambda: not self.context.ok(),
                )
            self._model_publishers = ModelPublishers(self)
            for camera in self._cameras.values():
                camera.open(self._model_publishers, every=settings.queue_policy == "all")
            self._changes.start(self._engine)
        except Exception as error:  # rclpy would log nothing of it
            self._release()
            self._model_status.problem = str(error)
            self._log_failure("cannot configure", error)
            return TransitionCallbackReturn.FAILURE
        self._model_status.problem = ""
        self._report_model(self._engine.model)
        self._phase = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish what class ids mean, then subscribe."""
        result = super().on_activate(state)
        self._phase = "active"
        for camera in self._cameras.values():
            camera.restart()
        try:
            if self._engine is not None:
                self._announce(self._engine)
            self._subscribe()
        except Exception as error:  # rclpy would log nothing of it
            self._log_failure("cannot activate", error)
            return TransitionCallbackReturn.ERROR
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and publish the results of the frames in work."""
        self._unsubscribe()
        self._drain()
        self._phase = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the publishers."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the publishers, in any state."""
        self._release()
        self._phase = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after a transition that failed."""
        self._release()
        return super().on_error(state)

    def destroy_node(self) -> None:
        """Stop the engine's threads before the publishers they use are destroyed."""
        self._release()
        super().destroy_node()

    def _log_failure(self, what: str, error: Exception) -> None:
        if self.context.ok():  # else the failure is a consequence of the program's end
            self.get_logger().error(f"{what}: {explained(error)}")

    def _drain(self) -> None:
        """Wait until no frame is in work."""
        end = time.monotonic() + _DRAIN_TIMEOUT_S
        while self._engine is not None and not self._engine.drain(_POLL_S):
            if time.monotonic() > end or not self.context.ok():
                return

    def _release(self) -> None:
        self._unsubscribe()
        self._changes.stop()  # first: a change that ends now is of no interest
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        for camera in self._cameras.values():
            camera.close()
        if self._model_publishers is not None:
            self._model_publishers.destroy()
            self._model_publishers = None
        self._model_status.model, self._model_status.problem = None, ""
        self._phase = "unconfigured"

    # The way of a frame

    def _submit(self, camera: str, frame: Frame) -> None:
        if self._engine is not None:
            self._engine.submit(frame, camera)

    def _deliver(self, item: CameraFrame, outcome: Classified | Exception, waited: float) -> None:
        camera = self._cameras.get(item.camera)
        if camera is not None:
            camera.deliver(item.frame, outcome, waited)

    def _count_dropped(self, item: CameraFrame, cause: str) -> None:
        camera = self._cameras.get(item.camera)
        if camera is not None:
            camera.statistics.count_dropped(cause)

    def _give_up(self, error: DeviceLostError) -> None:
        """Become unconfigured; called in the engine's thread for each frame that failed so."""
        engine = self._engine
        if engine is not None and self.executor is not None:
            self.executor.create_task(self._become_unconfigured, engine, str(error))

    def _become_unconfigured(self, failed: Engine, reason: str) -> None:
        if self._engine is not failed:
            return  # a frame before has done so
        self.get_logger().error(
            f"{reason}: the node becomes unconfigured. Configure it to load the model again"
        )
        if self._phase == "active":
            self.trigger_deactivate()
        self.trigger_cleanup()
        self._model_status.problem = reason

    # Enabling and disabling

    def _subscribe(self) -> None:
        if self._enabled and self._phase == "active" and self._engine is not None:
            # One that is to leave, or to come once `_on_cameras` is called, is not among all.
            wanted = self._engine.classifiers.keys() & self._settings.streams.keys()
            for name in wanted & self._cameras.keys():
                self._cameras[name].subscribe(partial(self._submit, name))

    def _unsubscribe(self) -> None:
        for camera in self._cameras.values():
            camera.unsubscribe()

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        before, self._enabled = self._enabled, request.data
        try:
            if self._enabled:
                self._subscribe()
            else:
                self._unsubscribe()
        except Exception as error:  # rclpy would end the node
            self._enabled = before
            self._log_failure("cannot subscribe", error)
            response.success, response.message = False, f"cannot subscribe: {error}"
            return response
        response.success = True
        response.message = f"{self._stream_state()}; classification is " + (
            "enabled" if self._enabled else "disabled"
        )
        return response

    def _stream_state(self) -> str:
        return "disabled" if self._phase == "active" and not self._enabled else self._phase

    # Parameters that change while running

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set all parameters or none; the services for parameters call this too."""
        try:
            prepared = self._changes.prepare(parameter_list)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return super().set_parameters_atomically(prepared)

    @property
    def _settings(self) -> Settings:
        return self._changes.settings

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_applied(self, engine: Engine) -> None:
        self._model_status.problem = ""
        self._report_model(engine.model)
        try:
            if self._model_publishers is not None and self._model_publishers.active:
                self._announce(engine)
        except Exception as error:  # the next result announces it again
            self._log_failure("cannot announce the model", error)

    def _announce(self, engine: Engine) -> None:
        """Publish what class ids mean; that is the same for all cameras."""
        classifier = next(iter(engine.classifiers.values()))
        if self._model_publishers is not None:
            self._model_publishers.announce(classifier)

    def _on_failed(self, problem: str) -> None:
        self._model_status.problem = problem

    def _on_leaving(self, names: set[str]) -> None:
        for name in names & self._cameras.keys():
            self._cameras[name].unsubscribe()
            if self._engine is not None:
                self._engine.withdraw(name)

    def _on_cameras(self) -> None:
        """Serve the cameras that the engine has."""
        engine, model = self._engine, self._model_publishers
        if engine is None or model is None:
            return
        try:
            self._keep_cameras(engine.classifiers)
            for camera in self._cameras.values():
                camera.open(model, every=self._settings.queue_policy == "all")
            self._subscribe()
        except Exception as error:  # rclpy would end the node
            self._log_failure("cannot serve all cameras", error)

    def _keep_cameras(self, names: Iterable[str]) -> None:
        """Have these cameras and no others; their counts are kept."""
        cameras = {
            name: self._cameras.get(name)
            or Camera(
                self,
                name,
                settings=lambda: self._settings,
                state=self._stream_state,
                stale_after_s=lambda: self._parameter("stale_after"),
                on_device_lost=self._give_up,
            )
            for name in names
        }
        before, self._cameras = self._cameras, cameras
        for name in before.keys() - cameras.keys():
            before[name].close()

    def _on_period(self, period_s: float) -> None:
        self.destroy_timer(self._timer)
        self._timer = self._start_timer(period_s)

    def _report_model(self, model: Model) -> None:
        """Log which model runs from now on, and restart its latencies, if it is another one."""
        if model is self._model_status.model:
            return
        self._model_status.model, self._model_status.problem = model, ""
        for camera in self._cameras.values():
            camera.statistics.latency.clear()
        log, text = self.get_logger(), f"running {model.name} from {model.file.path}"
        # On two lines, since rclpy accepts one severity per line of code.
        if model.file.untrained:
            log.warning(text)
        else:
            log.info(text)

    # Diagnostics

    def _start_timer(self, period: float) -> Timer:
        return self.create_timer(period, self._report, clock=self._steady)

    def _report_safely(self) -> None:
        try:
            self._report()
        except Exception as error:  # there is nobody to pass it to
            self._log_failure("cannot publish diagnostics", error)

    def _report(self) -> None:
        model = self._model_status.model
        streams = [camera.status for camera in self._cameras.values()]
        self._diagnostics.publish(
            diagnostic_array(
                self.get_clock().now(),
                self.get_fully_qualified_name().lstrip("/"),
                model.runtime.info.device if model else "",
                [*streams, self._model_status, *self._board_status],
            )
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    cv2.setNumThreads(1)  # for images of a model's size, OpenCV's threads cost more than they save
    memory = keep_memory()  # before the middleware allocates memory

    def work(node: ClassifierNode, executor: Executor) -> None:
        keeps_memory = node.get_parameter("keep_memory").value
        node.get_logger().debug(memory if keeps_memory else return_memory())
        if node.get_parameter("autostart").value:
            node.start()
        executor.spin()

    return run(NODE_NAME, ClassifierNode, work, args=args)


if __name__ == "__main__":
    sys.exit(main())
