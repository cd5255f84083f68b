"""Asking a running classifier how it looks at images."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter

from efv2_ros.classify.options import ViewOptions
from efv2_ros.client.spinner import Spinner
from efv2_ros.vision.nv12 import Roi

_PATIENCE = 5.0
"""Seconds to wait for the service, and for its answer."""


def view_of(spinner: Spinner, classifier: str) -> dict[str, Any] | None:
    """The `ViewOptions` of a running classifier, as offline replay describes them.

    Args:
        spinner: The node to ask with.
        classifier: Full name of the classifier.

    Returns:
        None if it does not answer, or has no such parameters.
    """
    names = [each.name for each in fields(ViewOptions)]
    client = spinner.node.create_client(GetParameters, f"{classifier}/get_parameters")
    try:
        if not spinner.until(client.service_is_ready, _PATIENCE):
            return None
        future = client.call_async(GetParameters.Request(names=names))
        if not spinner.until(future.done, _PATIENCE):
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
    values["roi"] = Roi.parse(values["roi"]) if values["roi"].strip() else None
    return asdict(ViewOptions(**values))
