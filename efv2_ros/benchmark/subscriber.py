"""A process that receives images as the node does, and does nothing else with them."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from efv2_ros.benchmark.transport import Way
from efv2_ros.node.malloc import keep_memory
from efv2_ros.node.options import Settings
from efv2_ros.node.subscription import ImageSubscription
from efv2_ros.vision.frame import Frame

_WARM_UP = 10
_TIMEOUT_S = 60.0


def receive(namespace: str, images: int, way: Way) -> dict[str, Any]:
    """Receive images reliably and measure what that costs.

    Args:
        namespace: Namespace in which `image` is published.
        images: How many images to measure, after some to warm up.
        way: How to receive them.

    Returns:
        `cpu_seconds` and `page_faults` of this process meanwhile, and `latencies_ms` from each
        image's stamp to its frame.
    """
    if way.keep_memory:
        keep_memory()
    # Its parent ends it by SIGTERM, which rclpy would handle.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("benchmark_subscriber", namespace=namespace)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    latencies: list[float] = []

    def take(frame: Frame) -> None:
        latencies.append((time.time_ns() - frame.header.nanoseconds) / 1e6)

    def fail(error: Exception) -> None:
        raise error

    settings = Settings(subscription=way.subscription, qos_reliability="reliable")
    ImageSubscription(node, settings, on_message=lambda: None, on_frame=take, on_error=fail)
    end = time.monotonic() + _TIMEOUT_S

    def spin(count: int) -> None:
        while len(latencies) < count:
            if time.monotonic() > end:
                sys.exit(f"{len(latencies)} of {count} images arrived")
            executor.spin_once(timeout_sec=0.1)

    spin(_WARM_UP)
    before = resource.getrusage(resource.RUSAGE_SELF)
    spin(_WARM_UP + images)
    after = resource.getrusage(resource.RUSAGE_SELF)
    node.destroy_node()
    rclpy.try_shutdown()
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "page_faults": after.ru_minflt - before.ru_minflt,
        "latencies_ms": latencies[_WARM_UP:],
    }


if __name__ == "__main__":
    print(json.dumps(receive(sys.argv[1], int(sys.argv[2]), Way(**json.loads(sys.argv[3])))))
