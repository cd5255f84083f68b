"""A listener that also calls the classifier's services."""

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from efv2_ros.client.listener import Listener
from efv2_ros.client.status import values

SOON = 30.0  # seconds: only reached when something is broken


class Talker(Listener):
    def __init__(self, node, process, **publisher):
        super().__init__(node, process.name, **publisher)
        self.process = process

    def call(self, kind, name, **fields):
        client = self.node.create_client(kind, f"{self.process.name}/{name}")
        assert self.spin_until(client.service_is_ready, SOON), f"no service {name}"
        future = client.call_async(kind.Request(**fields))
        assert self.spin_until(future.done, SOON), f"no answer from {name}"
        self.node.destroy_client(client)
        return future.result()

    def set(self, **parameters):
        """Set parameters in one request; the results, in their order."""
        return self.call(
            SetParameters, "set_parameters", parameters=as_messages(parameters)
        ).results

    def get(self, name):
        (value,) = self.call(GetParameters, "get_parameters", names=[name]).values
        return Parameter.from_parameter_msg(ParameterMessage(name=name, value=value)).value

    def describe(self, name):
        (descriptor,) = self.call(
            DescribeParameters, "describe_parameters", names=[name]
        ).descriptors
        return descriptor

    def transition(self, name):
        identifier = getattr(Transition, f"TRANSITION_{name.upper()}")
        return self.call(ChangeState, "change_state", transition=Transition(id=identifier)).success

    def state(self):
        return self.call(GetState, "get_state").current_state.label

    def enable(self, on):
        return self.call(SetBool, "set_enabled", data=on)

    def expect_results(self, count):
        assert self.wait_for_results(count, SOON), (
            f"{len(self.results)} of {count} results; {self.process.stop()}"
        )

    def fresh_stream(self):
        """Status and values of the stream, as of now."""
        assert self.wait_for_diagnostics(SOON), self.process.stop()
        return self.stream, values(self.stream)

    def fresh_model(self):
        """Status and values of the model, as of now."""
        assert self.wait_for_diagnostics(SOON), self.process.stop()
        return self.model, values(self.model)

    def model_failed(self):
        """Whether the model's last status is an error; it is none while the node configures."""
        return self.model is not None and self.model.level == DiagnosticStatus.ERROR


def as_messages(parameters):
    return [Parameter(name, value=value).to_parameter_msg() for name, value in parameters.items()]
