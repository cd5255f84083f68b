"""One camera of the node: its images, their results, and what is counted of them."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode

from efv2_ros.classify.classifier import Classified
from efv2_ros.node.delivery import Delivery
from efv2_ros.node.diagnostics import StreamStatus
from efv2_ros.node.options import Settings
from efv2_ros.node.publishers import ModelPublishers, ResultPublishers
from efv2_ros.node.stamps import StampOrder
from efv2_ros.node.statistics import Statistics
from efv2_ros.node.subscription import ImageSubscription
from efv2_ros.runtimes.base import DeviceLostError
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.nv12 import check


class Camera:
    """A camera's subscription, publishers and statistics.

    Args:
        node: The node.
        name: The camera's name; empty if it is the only one.
        settings: Returns the node's settings.
        state: See `StreamStatus`.
        stale_after_s: See `StreamStatus`.
        on_device_lost: See `Delivery`.

    Attributes:
        name: As given.
        statistics: What is counted of its images.
        status: Its status in the diagnostics.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        *,
        settings: Callable[[], Settings],
        state: Callable[[], str],
        stale_after_s: Callable[[], float],
        on_device_lost: Callable[[DeviceLostError], None],
    ) -> None:
        self.name = name
        self.statistics = Statistics()
        self.status = StreamStatus(
            self.statistics, state, stale_after_s, camera=name, topic=lambda: self.topic
        )
        self._node, self._settings = node, settings
        self._outputs: ResultPublishers | None = None
        self._subscription: ImageSubscription | None = None
        self._order = StampOrder()
        self._delivery = Delivery(
            node, lambda: self._outputs, self.statistics, camera=name,
            on_device_lost=on_device_lost,
        )  # fmt: skip

    @property
    def topic(self) -> str:
        """Full name of the topic of its images; empty while there is no subscription."""
        return self._subscription.topic if self._subscription is not None else ""

    def open(self, model: ModelPublishers, *, every: bool) -> None:
        """Create the publishers, active as the model's, unless they exist.

        Args:
            model: Publishers of what class ids mean.
            every: See `ResultPublishers`.
        """
        if self._outputs is None:
            outputs = ResultPublishers(self._node, model, camera=self.name, every=every)
            if model.active:
                outputs.activate()
            self._outputs = outputs

    def close(self) -> None:
        """Unsubscribe, and destroy the publishers."""
        self.unsubscribe()
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.destroy()

    def restart(self) -> None:
        """Accept images of any stamp next."""
        self._order = StampOrder()

    def subscribe(self, submit: Callable[[Frame], None]) -> None:
        """Subscribe to the images, unless that is done.

        Args:
            submit: Called with each image that can be read and is not late.
        """
        if self._subscription is not None:
            return

        def take(frame: Frame) -> None:
            settings = self._settings()
            check(frame, settings.view.max_pixels)
            if settings.queue_policy == "latest":
                self._order.check(frame.header)
            submit(frame)

        self._subscription = ImageSubscription(
            self._node,
            self._settings(),
            self.name,
            on_message=self._count_message,
            on_frame=take,
            on_error=self._delivery.drop,
        )

    def unsubscribe(self) -> None:
        """Unsubscribe from the images."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def deliver(self, frame: Frame, outcome: Classified | Exception, waited: float) -> None:
        """See `Delivery.deliver`."""
        self._delivery.deliver(frame, outcome, waited)

    def _count_message(self) -> None:
        self.statistics.count_received(self._node.get_clock().now().nanoseconds)
