"""Child processes: the classifier node as one of them, and how they are ended."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from efv2_ros.classify.options import NODE_NAME

CLASSIFIER_MODULE = "efv2_ros.node.classifier_node"

_END_TIMEOUT_S = 20.0


class ClassifierProcess:
    """Runs the classifier node; a context manager that ends it.

    Args:
        parameters: Parameters of the node.
        remappings: Topics to remap, by their name in the node.
        namespace: The node's namespace.
        environment: The process's environment; None for this one's.
        log_level: Least severity to log.
        module: The Python module to run instead of the classifier's; its `main` must end in it.

    Attributes:
        name: Full name of the node.
        output: What the process printed, once it has ended.
        returncode: Exit status, once it has ended.
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
        # For the node alone: ROS's own debug output is long.
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

    def stop(self, timeout_s: float = _END_TIMEOUT_S) -> str:
        """End the node and return what it printed; see `end_process`."""
        if self.returncode is None:
            self.returncode = end_process(self._process, timeout_s)
            self._log.seek(0)
            self.output = self._log.read()
            self._log.close()
        return self.output


def end_process(process: subprocess.Popen[Any], timeout_s: float = _END_TIMEOUT_S) -> int:
    """Ask a process to end, kill it if it does not, and return its exit status.

    It is asked with SIGTERM: a child inherits that SIGINT is ignored, and would go on.

    Args:
        process: A process that may have ended already.
        timeout_s: How long to wait before it is killed.
    """
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def _yaml(value: Any) -> str:
    """A value as the command line's YAML wants it: JSON, in which text stays text, is YAML."""
    return json.dumps(value, ensure_ascii=False)
