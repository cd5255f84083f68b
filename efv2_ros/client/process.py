"""The classifier node as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from efv2_ros.classify.options import NODE_NAME

CLASSIFIER_MODULE = "efv2_ros.node.classifier_node"


class ClassifierProcess:
    """Runs the classifier node; a context manager that ends it as Ctrl-C would.

    Args:
        parameters: Parameters of the node.
        remappings: Topics to remap, by their name in the node.
        namespace: The node's namespace.
        environment: The process's environment; None for this one's.
        log_level: Least severity to log.
        module: What is run; one of another name ends in the node's `main`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        remappings: Mapping[str, str] | None = None,
        namespace: str = "",
        environment: Mapping[str, str] | None = None,
        log_level: str = "info",
        module: str = CLASSIFIER_MODULE,
    ) -> None:
        command = [sys.executable, "-m", module, "--ros-args"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={_yaml(value)}"]
        for name, target in (remappings or {}).items():
            command += ["-r", f"{name}:={target}"]
        if namespace:
            command += ["-r", f"__ns:={namespace}"]
        self.name = f"{namespace.rstrip('/')}/{NODE_NAME}"
        # Of the node alone: ROS's own debug output is long.
        logger = self.name.lstrip("/").replace("/", ".")
        command += ["--log-level", f"{logger}:={log_level}"]
        # A pipe that nobody reads would fill and block the node.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=subprocess.STDOUT
        )
        self.output = ""
        self.returncode: int | None = None

    def __enter__(self) -> ClassifierProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def stop(self, patience: float = 20.0) -> str:
        """Interrupt the node, wait for its end, and return what it printed."""
        if self.returncode is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self.returncode = self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self.returncode = self._process.wait()
            self._log.seek(0)
            self.output = self._log.read()
            self._log.close()
        return self.output


def _yaml(value: Any) -> str:
    """A value as the command line's YAML wants it: JSON, in which text stays text, is YAML."""
    return json.dumps(value, ensure_ascii=False)
