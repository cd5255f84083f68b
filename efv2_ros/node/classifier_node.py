"""The lifecycle node: subscribes to images, publishes what they show. Wiring only."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.timer import Timer
from std_srvs.srv import SetBool

from efv2_ros.classify.classifier import Classified, Classifier
from efv2_ros.classify.engine import Engine
from efv2_ros.classify.failures import cause_of, explained
from efv2_ros.classify.model import Model
from efv2_ros.classify.options import NODE_NAME
from efv2_ros.node.diagnostics import (
    BoardStatus,
    ModelStatus,
    Statistics,
    StatusTask,
    StreamStatus,
    diagnostic_array,
    durations,
)
from efv2_ros.node.download_log import DownloadLog
from efv2_ros.node.malloc import keep_memory, return_memory
from efv2_ros.node.options import Settings
from efv2_ros.node.parameter_changes import ParameterChanges
from efv2_ros.node.publishers import Outputs
from efv2_ros.node.stamps import StampOrder
from efv2_ros.node.subscription import ImageSource
from efv2_ros.node.transports import TRANSPORTS
from efv2_ros.runtimes import board
from efv2_ros.runtimes.base import DeviceLostError
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.nv12 import check

_DRAIN_SECONDS = 5.0


class ClassifierNode(LifecycleNode):
    """Classifies the images of one topic; topics and parameters are listed in the README."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__(NODE_NAME, **node_arguments)
        self._phase = "unconfigured"
        self._engine: Engine | None = None
        self._outputs: Outputs | None = None
        self._enabled = True
        self._logged: set[str] = set()
        self._order = StampOrder()
        self._statistics = Statistics()
        self._model_status = ModelStatus()
        self._status_tasks: list[StatusTask] = [
            StreamStatus(
                self._statistics, self._stream_state, lambda: self._parameter("stale_after")
            ),
            self._model_status,
        ]
        if board.has_bpu():
            self._status_tasks.append(BoardStatus())
        self._source: ImageSource | None = None
        self._changes = ParameterChanges(
            self,
            on_applied=self._on_applied,
            on_failed=self._on_failed,
            on_period=self._on_period,
        )
        # What may fail comes after all that `destroy_node` looks at.
        self._changes.declare()

        # Diagnostics speak in every lifecycle state: that a node is not active is news too.
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self._start_timer(self._parameter("diagnostics_period"))
        self._set_enabled = self.create_service(SetBool, "~/set_enabled", self._on_set_enabled)

    # Lifecycle

    def start(self) -> None:
        """Configure and activate, as a lifecycle manager would."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and create what publishes; FAILURE, with one sentence, when it cannot."""
        try:
            self._changes.read()
            TRANSPORTS[self._settings.transport].message_type()  # missing, it is missed here
            self._engine = Engine(
                self._settings.model,
                self._settings.view,
                self._deliver,
                policy=self._settings.queue_policy,
                dropped=lambda _, cause: self._statistics.dropped(cause),
                progress=DownloadLog(self.get_logger()),
            )
            self._outputs = Outputs(self, every=self._settings.queue_policy == "all")
            self._changes.start(self._engine)
        except Exception as error:  # rclpy would swallow it without a word
            self._release()
            self._model_status.problem = str(error)
            self.get_logger().error(f"cannot configure: {explained(error)}")
            return TransitionCallbackReturn.FAILURE
        self._model_status.problem = ""
        self._report_model(self._engine.classifier.model)
        self._phase = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Say what the results will mean, then subscribe."""
        result = super().on_activate(state)
        self._phase = "active"
        self._order = StampOrder()
        try:
            if self._engine is not None and self._outputs is not None:
                self._outputs.announce(self._engine.classifier)
            self._subscribe()
        except Exception as error:  # rclpy would swallow it without a word
            self.get_logger().error(f"cannot activate: {explained(error)}")
            return TransitionCallbackReturn.ERROR
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and publish what is still in work."""
        self._unsubscribe()
        if self._engine is not None:
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
        self._unsubscribe()
        self._changes.stop()
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        self._model_status.model, self._model_status.problem = None, ""
        self._phase = "unconfigured"

    # One frame's way: message, mailbox, worker, result

    def _on_frame(self, frame: Frame) -> None:
        check(frame)
        if self._settings.queue_policy == "latest":
            self._order.check(frame.header)
        if self._engine is not None:
            self._engine.submit(frame)

    def _deliver(self, frame: Frame, outcome: Classified | Exception, waited: float) -> None:
        outputs = self._outputs
        try:
            if isinstance(outcome, Exception):
                raise outcome
            if outputs is not None and outputs.active:
                self._publish(outputs, frame, outcome, waited)
            else:
                self._statistics.dropped("inactive")
        except Exception as error:
            if self.context.ok():  # else the node is going down, and nobody listens any more
                self._drop(error)

    def _publish(self, outputs: Outputs, frame: Frame, outcome: Classified, waited: float) -> None:
        start = time.perf_counter()
        outputs.publish(frame, outcome)
        published = time.perf_counter() - start
        now = self.get_clock().now().nanoseconds
        seconds = durations(outcome, waited, published, now, frame.header.nanoseconds)
        outputs.publish_latency(frame.header, seconds)
        self._statistics.classified(now, seconds)  # last: what it counts has been published
        outputs.publish_annotated(frame, outcome)

    def _drop(self, error: Exception) -> None:
        """Count a frame that got no result; say why, once for each cause."""
        cause = cause_of(error)
        if isinstance(error, DeviceLostError):
            self._give_up(error)
        self._statistics.dropped(cause)
        if cause in self._logged:
            return
        self._logged.add(cause)
        self.get_logger().warning(
            f"dropped a frame ({cause}): {explained(error)}. "
            "Further ones are counted in /diagnostics"
        )

    def _give_up(self, error: DeviceLostError) -> None:
        """Become unconfigured; called by a worker, for each frame that met the lost device."""
        engine = self._engine
        if engine is not None and self.executor is not None:
            self.executor.create_task(self._become_unconfigured, engine, str(error))

    def _become_unconfigured(self, failed: Engine, reason: str) -> None:
        if self._engine is not failed:
            return  # another frame of the same engine said so before
        self.get_logger().error(
            f"{reason}: the node becomes unconfigured. Configuring loads the model anew"
        )
        if self._phase == "active":
            self.trigger_deactivate()
        self.trigger_cleanup()
        self._model_status.problem = reason

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

    def _on_applied(self, classifier: Classifier) -> None:
        self._model_status.problem = ""
        self._report_model(classifier.model)
        if self._outputs is not None and self._outputs.active:
            self._outputs.announce(classifier)

    def _on_failed(self, problem: str) -> None:
        self._model_status.problem = problem

    def _on_period(self, period_s: float) -> None:
        self.destroy_timer(self._timer)
        self._timer = self._start_timer(period_s)

    def _report_model(self, model: Model) -> None:
        """Tell people about the model that runs from now on, if it is another."""
        if model is self._model_status.model:
            return
        self._model_status.model, self._model_status.problem = model, ""
        self._statistics.latency.clear()
        log, text = self.get_logger(), f"running {model.name} from {model.file.path}"
        # Two lines: rclpy wants one severity of each.
        if model.file.untrained:
            log.warning(text)
        else:
            log.info(text)

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
                self._status_tasks,
            )
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    cv2.setNumThreads(1)  # threads cost more than they bring at the sizes the node works on
    memory = keep_memory()  # before the middleware allocates
    rclpy.init(args=args)
    try:
        _run(memory)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ParameterException as error:
        print(f"{NODE_NAME}: {error.args[0]}", file=sys.stderr)
        return 2
    except Exception:
        if rclpy.ok():
            raise  # else it is the end of the context, met in the middle of something
    finally:
        rclpy.try_shutdown()
    return 0


def _run(memory: str) -> None:
    node = ClassifierNode()
    try:
        if not node.get_parameter("keep_memory").value:
            memory = return_memory()
        node.get_logger().debug(memory)
        if node.get_parameter("autostart").value:
            node.start()
        rclpy.spin(node)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut this short
        node.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
