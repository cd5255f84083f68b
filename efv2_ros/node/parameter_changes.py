"""Changes of parameters while the node runs: checks, application to the engine, and undoing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter

from efv2_ros.classify.engine import Engine
from efv2_ros.classify.failures import explained
from efv2_ros.classify.model import check_request
from efv2_ros.classify.option_table import Change, Option, Value
from efv2_ros.classify.options import MODEL_OPTIONS, ONLY_CAMERA, VIEW_OPTIONS
from efv2_ros.node import parameters
from efv2_ros.node.options import PARAMETERS, Settings, options_with


def _is_of_engine(name: str) -> bool:
    """Whether an option takes effect in the engine, which may fail to apply it."""
    own = name.rpartition(".")[2]  # without the name of a camera
    return own in MODEL_OPTIONS or own in VIEW_OPTIONS or own == "cameras"


class ParameterChanges:
    """Answers changes of parameters, and applies those that are allowed.

    rclpy lets an exception of a parameter callback end the node; here each becomes a refusal with
    its reason. A change that the engine fails to apply, after it was allowed, is undone.

    Args:
        node: The node.
        on_applied: Called with the engine after it applied a change. Called in another thread.
        on_failed: Called with the reason, a sentence, after the engine failed to apply a change.
            Called in another thread.
        on_period: Called with a new `diagnostics_period`.
        on_leaving: Called with the names of cameras that leave, before the engine is changed.
        on_cameras: Called once the engine has other cameras, or has kept those that were to leave.
    """

    def __init__(
        self,
        node: LifecycleNode,
        *,
        on_applied: Callable[[Engine], None],
        on_failed: Callable[[str], None],
        on_period: Callable[[float], None],
        on_leaving: Callable[[set[str]], None],
        on_cameras: Callable[[], None],
    ) -> None:
        self._node = node
        self._on_leaving, self._on_cameras = on_leaving, on_cameras
        self._on_applied, self._on_failed, self._on_period = on_applied, on_failed, on_period
        self._engine: Engine | None = None
        self._is_undoing = False
        self._options: Mapping[str, Option] = PARAMETERS
        self.settings = self._requested = self._applied = Settings.of({})

    def declare(self) -> tuple[str, ...]:
        """Declare all parameters, then answer changes of them.

        Returns:
            The names of the cameras; of the only one if there are no others, or a name is wrong,
            which `read` will say.

        Raises:
            ParameterException: The node was started with a value of a wrong type or out of range.
        """
        parameters.declare(self._node, PARAMETERS)
        cameras = PARAMETERS["cameras"].plain(self._node.get_parameter("cameras").value)
        self._node.set_parameters([Parameter("cameras", value=cameras)])
        names = None
        with suppress(ValueError):
            names = self._declare_cameras(cameras)
        self._node.add_on_set_parameters_callback(self._on_set_parameters)
        return names or (ONLY_CAMERA,)

    def read(self) -> Settings:
        """Read all parameters into `settings`.

        Raises:
            ValueError: A value is not allowed; the message names the parameter.
        """
        self.settings = self._requested = self._applied = parameters.read(self._node)
        return self.settings

    def start(self, engine: Engine) -> None:
        """Apply changes to an engine from now on; it was made with `settings`."""
        self._engine = engine

    def stop(self) -> None:
        """Apply changes to no engine, and ignore what becomes of those under way."""
        self._engine = None

    def prepare(self, given: Sequence[Parameter]) -> list[Parameter]:
        """Refuse unknown names and wrong types in words; rclpy gives the types' numbers.

        Returns:
            The parameters, with whole numbers as float where the parameter is one.

        Raises:
            ValueError: A parameter does not exist, or its value is of another type.
        """
        return [self._prepared(each) for each in given]

    def _prepared(self, given: Parameter) -> Parameter:
        if not self._node.has_parameter(given.name):
            raise ValueError(f"there is no parameter {given.name}")
        option = self._options.get(given.name)
        if option is None or given.type_ == Parameter.Type.NOT_SET:
            return given  # rclpy's own parameter, or one that rclpy refuses to delete
        value = option.plain(given.value)
        option.check_type(value)
        return Parameter(given.name, value=float(value) if option.kind is float else value)

    def _on_set_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        if self._is_undoing:
            return SetParametersResult(successful=True)
        try:
            self._change({each.name: each.value for each in changed if each.name in self._options})
        except Exception as error:
            reason = _encodable(str(error) or type(error).__name__)
            text = _encodable(explained(error))
            if text != reason:  # unexpected: with its traceback
                self._node.get_logger().error(f"refused a change of parameters: {text}")
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _change(self, changes: Mapping[str, Value]) -> None:
        """Check a change, then apply it.

        Only what changes is checked: of two values that are wrong from the start, each can be
        corrected alone.
        """
        for name, value in changes.items():
            self._options[name].check(value)
        if "cameras" in changes:
            self._declare_cameras(changes["cameras"])
        if self._engine is not None:
            self._change_engine(self._engine, changes)
        if "diagnostics_period" in changes:
            self._on_period(float(changes["diagnostics_period"]))

    def _change_engine(self, engine: Engine, changes: Mapping[str, Value]) -> None:
        before = self.settings.values
        different = {name for name, value in changes.items() if value != before.get(name)}
        for name in different:
            if self._options[name].change is Change.UNCONFIGURED:
                raise ValueError(f"{name} changes {Change.UNCONFIGURED.value}")
        settings = parameters.read(self._node, changes)
        if any(map(_is_of_engine, different)):
            if settings.model != self._requested.model:
                check_request(settings.model)
            self._on_leaving(set(self.settings.streams) - set(settings.streams))
            engine.change(
                settings.model, settings.views, lambda error: self._on_changed(settings, error)
            )
            self._requested = settings
        self.settings = settings

    def _declare_cameras(self, text: Value) -> tuple[str, ...] | None:
        """Declare the parameters of cameras; those of a camera that leaves keep their values.

        Returns:
            The names of the cameras; None if the text is empty.

        Raises:
            ValueError: The text does not name cameras.
        """
        names: tuple[str, ...] | None = PARAMETERS["cameras"].attribute(text)
        options = options_with(names)
        parameters.declare(self._node, options)  # rclpy asks `_on_set_parameters` about each
        self._options = options
        return names

    def _on_changed(self, settings: Settings, error: Exception | None) -> None:
        """Note what became of a change; called in a thread of the engine."""
        engine = self._engine
        if engine is None or not self._node.context.ok():  # the node or the program ends
            return
        if error is None:
            before, self._applied = self._applied, settings
            self._on_applied(engine)
            if (
                before.streams.keys() != settings.streams.keys()
                and self._node.executor is not None
            ):
                self._node.executor.create_task(self._on_cameras)
            return
        name = engine.model.name
        self._node.get_logger().error(_encodable(f"{name} stays in use: {explained(error)}"))
        self._on_failed(_encodable(f"{name} stays in use: {error}"))
        if self._node.executor is not None:
            self._node.executor.create_task(self._undo, settings)

    def _undo(self, failed: Settings) -> None:
        """Set the parameters back to what the engine uses, all at once."""
        if self._requested is not failed:
            return  # a newer change is under way
        self._requested = self._applied
        values = self._applied.values
        wrong = [
            name
            for name, value in values.items()
            if _is_of_engine(name) and value != failed.values.get(name, value)
        ]
        self._is_undoing = True
        try:
            result = self._node.set_parameters_atomically(
                [Parameter(name, value=values[name]) for name in wrong]
            )
        finally:
            self._is_undoing = False
        if not result.successful:
            self._node.get_logger().error(f"cannot set {', '.join(wrong)} back: {result.reason}")
        self.settings = parameters.read(self._node)
        self._on_cameras()


def _encodable(text: str) -> str:
    """Replace what a ROS message cannot hold: halves of surrogate pairs, from file names."""
    return text.encode("utf-8", "backslashreplace").decode()
