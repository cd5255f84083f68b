"""Simulates the BPU for `runtimes/simulator.py`: runs frames from shared memory until stdin ends.

The first argument is the job, a JSON object:

- `bin`: path of the compiled model; `quantized`: path of the quantised model that it was compiled
  from, or null to run the `.bin` itself; `bin_sha256`: the SHA-256 that the quantised model must
  name.
- `height`, `width`: the size of the image in pixels.
- `memory`: descriptor of the shared memory; `slots`: number of frames in it; `stride`: bytes from
  one frame's NV12 to the next; `logits`: offset of the first frame's logits, float32.
- `threads`: CPU threads of an inference.
- `folder`: folder for temporary files, removed when stdin ends.

Each byte on stdin is the number of a slot to run. Each line on stdout is a JSON object: `classes`
and `version` once the model is loaded, `{}` once a slot's logits are written, or `error`, a
sentence for people. With the argument `--version`, the versions are printed instead.
"""

from __future__ import annotations

import importlib.util
import json
import math
import mmap
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from quantized_input import fill

EXECUTOR, COMPILER = "dg_nn_toolkit", "dgdk"
"""Distributions with the executor of quantised models, and with the simulator of compiled ones."""

_NV12 = 7  # a value of InputDataType in runtime.proto
_HBM = "PACKED_HBM_MODEL"
_BPU = "BPU"  # the operator of a part that runs there
_AFTER_BPU = ("Dequantize", "Reshape")  # what may run on the CPU after it


class Refused(Exception):
    """A model that cannot be simulated; the message is for people."""


class Network(Protocol):
    """A loaded model."""

    classes: int
    version: str

    def run(self, nv12: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run an image, uint8 (H * 3 / 2, W), and return the logits, float32 (classes,)."""


class Compiled:
    """What a `.bin` says of itself.

    Raises:
        Refused: It is no classifier of one NV12 image of this size.
    """

    def __init__(self, path: Path, height: int, width: int) -> None:
        proto = _vendor_module("horizon_tc_ui", "hbdtort/runtime_pb2.py")
        model = proto.ModelProto()
        try:
            model.ParseFromString(path.read_bytes())
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}") from error
        except Exception as error:  # protobuf has several implementations
            raise Refused(f"{path} is not a model of the toolchain: {error}") from error
        graphs = [*([model.graph] if model.HasField("graph") else []), *model.graphs]
        if len(graphs) != 1:
            raise Refused(f"{path} holds {len(graphs)} models and not one")
        (graph,) = graphs
        if len(graph.output) != 1:
            raise Refused(f"{path} has {len(graph.output)} outputs and not one")
        if len(graph.input) != 1 or list(graph.input_type) != [_NV12]:
            names = ", ".join(map(proto.InputDataType.Name, graph.input_type)) or "nothing"
            raise Refused(f"{path} takes {names} and not one NV12 image")
        _check_size(path, list(graph.input[0].type.dim), height, width)
        self.path = path
        self.classes = math.prod(graph.output[0].type.dim)
        self._nodes = list(graph.node)
        self._constants = {each.name: each for each in graph.initializer}

    def bpu(self) -> tuple[str, bytes]:
        """Find the part for the BPU: its name and its machine code.

        Raises:
            Refused: Parts of the model run on the CPU.
        """
        kinds = [each.op_type for each in self._nodes]
        elsewhere = sorted(set(kinds) - {_BPU, *_AFTER_BPU})
        if kinds[:1] != [_BPU] or kinds.count(_BPU) > 1 or elsewhere:
            what = ", ".join(elsewhere) or "a part"
            raise Refused(
                f"{self.path} runs {what} on the CPU, which the vendor's simulator cannot: put "
                f"the quantised model beside it, as {self.path.stem}.quantized.onnx"
            )
        if _HBM not in self._constants:
            raise Refused(f"{self.path} has no machine code for the BPU")
        return self._nodes[0].name, self._constants[_HBM].string_data[0]

    def scale(self) -> NDArray[np.float32]:
        """The factors of the output's integers: float32, one or one a class.

        Raises:
            Refused: There are none.
        """
        used = [each.input[1] for each in self._nodes if each.op_type == "Dequantize"]
        # A model whose last node was removed when it was compiled keeps the factors.
        names = used or [name for name, each in self._constants.items() if each.float_data]
        if len(names) == 1 and names[0] in self._constants:
            scale = np.array(self._constants[names[0]].float_data, np.float32)
            if scale.size in (1, self.classes):
                return scale
        raise Refused(f"{self.path} has no scale for its {self.classes} outputs")


class Executor:
    """A quantised model in the quantiser's own ONNX Runtime: the BPU's integers, bit by bit."""

    def __init__(self, job: dict[str, Any], compiled: Compiled) -> None:
        # The package around this module takes seconds and hundreds of megabytes to import.
        runtime = _vendor_module("hmct", "executor/onnxruntime_pybind11_state.so")
        path = Path(job["quantized"])
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = max(1, job["threads"])
        options.log_severity_level = 3
        try:
            session = runtime.InferenceSession(options, str(path), True)
            session.load_model([])
        except Exception as error:
            raise Refused(f"{path} cannot be loaded: {_first_line(error)}") from error
        _check_belongs(path, session.model_meta.custom_metadata_map, job)
        inputs, outputs = session.inputs_meta, session.outputs_meta
        if len(inputs) != 1 or inputs[0].type != "tensor(int8)":
            raise Refused(f"{path} must take one int8 image")
        _check_size(path, list(inputs[0].shape), job["height"], job["width"])
        if len(outputs) != 1 or outputs[0].type != "tensor(float)":
            raise Refused(f"{path} must return one float tensor")
        self.classes = math.prod(outputs[0].shape)
        if self.classes != compiled.classes:
            raise Refused(f"{path} has {self.classes} classes and not {compiled.classes}")
        self.version = f"{EXECUTOR} {version(EXECUTOR)}"
        self._session, self._input, self._output = session, inputs[0].name, outputs[0].name
        self._image = np.empty((1, job["height"], job["width"], 3), np.int8)

    def run(self, nv12: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network.run`."""
        fill(self._image, nv12)
        (output,) = self._session.run([self._output], {self._input: self._image}, None)
        return np.asarray(output, np.float32).reshape(-1)


class VendorSimulator:
    """A compiled model in `hbdk-sim`, a process for each frame.

    The vendor's library `libhbrt` could stay in this process, but would gain nothing: of the
    seconds that a frame takes, all but some 30 ms are the simulation, which is the same.
    """

    def __init__(self, job: dict[str, Any], compiled: Compiled) -> None:
        folder = Path(job["folder"])
        name, code = compiled.bpu()
        self.classes, self._scale = compiled.classes, compiled.scale()
        self.version = f"{COMPILER} {version(COMPILER)}"
        self._image, self._results = folder / "image.yuv", folder / "results"
        self._results.mkdir(exist_ok=True)
        machine_code = folder / "model.hbm"
        machine_code.write_bytes(code)
        self._command = [
            str(_vendor_file("hbdk", "bin/hbdk-sim")), "-f", str(machine_code), "-n", name,
            "-i", str(self._image), "--yuv-size", f"{job['height']}x{job['width']}",
            "-o", str(self._results),
        ]  # fmt: skip

    def run(self, nv12: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network.run`."""
        self._image.write_bytes(nv12.data)
        done = subprocess.run(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        files = list(self._results.glob("*_elem_int.txt"))
        if done.returncode or len(files) != 1:
            last = (done.stdout.strip().splitlines() or ["without a word"])[-1]
            raise RuntimeError(f"hbdk-sim ended with status {done.returncode}: {last}")
        lines = files[0].read_text().splitlines()
        files[0].unlink()  # the next frame's must be its own
        integers = np.array(" ".join(each for each in lines if each[:1] != "#").split(), np.int32)
        if integers.size != self.classes:
            raise RuntimeError(f"hbdk-sim returned {integers.size} values and not {self.classes}")
        return integers.astype(np.float32) * self._scale


def open_network(job: dict[str, Any]) -> Network:
    """Load the model of a job.

    Raises:
        Refused: It cannot be simulated.
    """
    compiled = Compiled(Path(job["bin"]), job["height"], job["width"])
    return Executor(job, compiled) if job["quantized"] else VendorSimulator(job, compiled)


def main() -> None:
    """Load the model, then run slots until stdin ends."""
    answers = _take_stdout()
    if sys.argv[1] == "--version":
        print(f"{EXECUTOR} {version(EXECUTOR)}, {COMPILER} {version(COMPILER)}", file=answers)
        return
    job = json.loads(sys.argv[1])

    def answer(**message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(slots, job["folder"]), daemon=True).start()
    try:
        network = open_network(job)
        images, logits = _frames(job, network.classes)
    except Refused as error:
        answer(error=str(error))
        return
    except Exception as error:
        traceback.print_exc()
        answer(error=f"{job['bin']} cannot be simulated: {_first_line(error)}")
        return
    answer(classes=network.classes, version=network.version)
    while True:
        slot = slots.get()
        try:
            logits[slot] = network.run(images[slot])
        except Exception as error:
            traceback.print_exc()
            answer(error=f"the simulator: {_first_line(error)}")
        else:
            answer()


def _frames(
    job: dict[str, Any], classes: int
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
    """View the shared memory, once it is large enough for the logits as well."""
    slots, rows, width = job["slots"], job["height"] * 3 // 2, job["width"]
    size = job["logits"] + slots * classes * 4
    os.ftruncate(job["memory"], size)
    memory = mmap.mmap(job["memory"], size)
    images = [
        np.frombuffer(memory, np.uint8, rows * width, n * job["stride"]).reshape(rows, width)
        for n in range(slots)
    ]
    logits = np.frombuffer(memory, np.float32, slots * classes, job["logits"])
    return images, logits.reshape(slots, classes)


def _listen(slots: queue.SimpleQueue[int], folder: str) -> None:
    """Read the numbers of slots; when stdin ends, the caller has died: end all at once."""
    while block := os.read(0, 256):
        for slot in block:
            slots.put(slot)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)  # hbdk-sim as well


def _take_stdout() -> Any:
    """Keep stdout for answers: what the vendor's libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _check_belongs(path: Path, metadata: dict[str, str], job: dict[str, Any]) -> None:
    named = metadata.get("bin_sha256")
    if named != job["bin_sha256"]:
        problem = "names no .bin" if named is None else "belongs to another .bin"
        raise Refused(
            f"{path} {problem}, so it is not known to be the quantised model of {job['bin']}: "
            "put the right one there, or remove it to use the vendor's slower simulator"
        )


def _check_size(path: Path, shape: list[Any], height: int, width: int) -> None:
    if shape not in ([1, height, width, 3], [1, 3, height, width]):
        wanted = [1, height, width, 3]
        raise Refused(f"{path} takes an image of shape {shape} and not {wanted}")


def _vendor_file(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Refused(f"the toolchain's package {package} is not installed")
    return Path(spec.submodule_search_locations[0]) / name


def _vendor_module(package: str, name: str) -> Any:
    """Import one module without the package it is in."""
    path = _vendor_file(package, name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


if __name__ == "__main__":
    main()
