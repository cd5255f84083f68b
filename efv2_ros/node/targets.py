"""Results as TROS's nodes exchange them: ai_msgs/PerceptionTargets.

The fields are those that TROS's dnn_node_example fills for a classification, so that its websocket
and other nodes show the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time

from efv2_ros.classify.classifier import Classified
from efv2_ros.classify.latency import END_TO_END
from efv2_ros.node.conversions import header_message
from efv2_ros.node.transports import message_type
from efv2_ros.vision.frame import Header

PERCEPTION_TARGETS = "ai_msgs/msg/PerceptionTargets"

_MAX_FPS = 2**15 - 1
"""The message's rate is an int16."""

_PERFS = {
    "preprocess": "convert",
    "predict_infer": "infer",
    "predict_parse": "postprocess",
    "postprocess": "publish",
}
"""The stage of `STAGES` that each of TROS's stages is, in their order."""

_PIPELINE = "pipeline"


class TargetsMessage:
    """Maker of PerceptionTargets messages.

    Raises:
        TransportError: ai_msgs is not installed.
    """

    def __init__(self) -> None:
        self._targets = message_type(PERCEPTION_TARGETS)
        self._target, self._roi, self._perf = (
            message_type(f"ai_msgs/msg/{name}") for name in ("Target", "Roi", "Perf")
        )

    def make(
        self,
        header: Header,
        size: tuple[int, int],
        outcome: Classified,
        seconds: Mapping[str, float],
        now_ns: int,
        rate_hz: float,
    ) -> Any:
        """Make the message of a result.

        Each class is a target whose place, a point, is the middle of the image.

        Args:
            header: The image's header.
            size: The image's width and height in pixels.
            outcome: The result.
            seconds: How long each stage of the image took; see `stage_durations`.
            now_ns: When the last stage ended, by the node's clock.
            rate_hz: Rate of the results.
        """
        return self._targets(
            header=header_message(header),
            fps=min(_MAX_FPS, round(rate_hz)),
            perfs=self._perfs(outcome.model.name, seconds, now_ns),
            targets=[self._class(name, score, size) for _, name, score in outcome.classes],
        )

    def _class(self, name: str, score: float, size: tuple[int, int]) -> Any:
        roi = self._roi(confidence=score)
        roi.rect.x_offset, roi.rect.y_offset = size[0] // 2, size[1] // 2
        return self._target(type=name, rois=[roi])

    def _perfs(self, model: str, seconds: Mapping[str, float], now_ns: int) -> list[Any]:
        """Make the durations; the stages stand one after the other and end now.

        The time that an image waits between them counts as before the first.
        """
        start_ns = now_ns - sum(_ns(seconds[stage]) for stage in _PERFS.values())
        perfs = []
        for name, stage in _PERFS.items():
            perfs.append(self._duration(f"{model}_{name}", start_ns, seconds[stage]))
            start_ns += _ns(seconds[stage])
        if END_TO_END in seconds:
            whole = seconds[END_TO_END]
            perfs.append(self._duration(f"{model}_{_PIPELINE}", now_ns - _ns(whole), whole))
        return perfs

    def _duration(self, name: str, start_ns: int, seconds: float) -> Any:
        return self._perf(
            type=name,
            stamp_start=_time(start_ns),
            stamp_end=_time(start_ns + _ns(seconds)),
            time_ms_duration=seconds * 1e3,
        )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _time(nanoseconds: int) -> Time:
    sec, nanosec = divmod(nanoseconds, 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)
