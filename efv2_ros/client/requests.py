"""Requests to a running classifier."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter

from efv2_ros.classify.options import ViewOptions
from efv2_ros.client.spinner import Spinner
from efv2_ros.vision.nv12 import Roi

_TIMEOUT_S = 5.0
"""For the service to appear, and again for its answer."""


def request_view_options(spinner: Spinner, classifier: str) -> dict[str, Any] | None:
    """Ask a running classifier for its `ViewOptions`.

    Args:
        spinner: The node to ask with.
        classifier: Full name of the classifier.

    Returns:
        The options by name, in the form in which offline replay writes them; None if there is no
        answer, or the node has no such parameters.
    """
    names = [each.name for each in fields(ViewOptions)]
    client = spinner.node.create_client(GetParameters, f"{classifier}/get_parameters")
    try:
        if not spinner.spin_until(client.service_is_ready, _TIMEOUT_S):
            return None
        future = client.call_async(GetParameters.Request(names=names))
        if not spinner.spin_until(future.done, _TIMEOUT_S):
            return None
        answers = future.result().values
    finally:
        spinner.node.destroy_client(client)
    if len(answers) != len(names):
        return None
    values = {
        name: Parameter.from_parameter_msg(ParameterMessage(name=name, value=answer)).value
        for name, answer in zip(names, answers, strict=True)
    }
    if None in values.values():
        return None
    try:
        values["roi"] = Roi.parse(values["roi"]) if values["roi"].strip() else None
        return asdict(ViewOptions(**values))
    except (AttributeError, TypeError, ValueError):  # parameters of a node that is no classifier
        return None
