"""What this package and the toolchain's programs say to each other: typed JSON with a version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from efv2_ros.toolchain.environment import ToolchainError
from efv2_ros.toolchain.typed_json import brief, decode, plain

VERSION = 1
"""Version of all messages. `worker/channel.py` has the other side's."""

Unit = Literal["BPU", "CPU"]
Width = Literal["int8", "int16"]
WaitsFor = Literal["compute", "ddr", "layout", ""]
NodeType = Literal["int8", "int16", "int32", "float", ""]


@dataclass(frozen=True)
class NodeRule:
    """How one node is to be quantised.

    Attributes:
        name: The node's name in the model.
        on: Where it runs; None leaves it to the compiler.
        input_type: Width of its inputs; None for the model's.
        output_type: Width of its outputs; None for the model's.
    """

    name: str
    on: Unit | None = None
    input_type: Width | None = None
    output_type: Width | None = None


@dataclass(frozen=True)
class CompileRequest:
    """A model to be quantised and compiled for the RDK X5.

    Attributes:
        model: The float model, an ONNX file. Its one input is RGB, float32 (1, 3, H, W),
            normalised with `mean` and `scale`.
        calibration: Folder of `*.rgb` files, each one image: float32 in C order, (1, 3, H, W),
            RGB from 0 to 255.
        mean: Subtracted from R, G and B.
        scale: R, G and B are multiplied with it afterwards.
        nv12_range: Range of the NV12 samples that the compiled model gets.
        nodes: Rules for single nodes.
        all_int16: Whether all activations are int16 that can be.
        calibration_type: `max`, `kl`, `mix` or `default`, which are the vendor's, or `mse`: the
            range of each tensor is the one that errs least, see `worker/ranges.py`.
        max_percentile: Share of the values, 0 to 1, that the range of a tensor holds; for `max`.
        per_channel: Whether activations have a range for each channel.
        asymmetric: Whether ranges need not be symmetric.
        bias_correction: Whether biases are corrected for the error of the weights.
        compile_mode: What the compiler makes small: the latency, or the traffic to memory.
        optimize_level: The compiler's effort, `O0` to `O3`.
        jobs: Threads of the compiler; 0 for one a core.
        quantize_only: Whether to stop after the quantised model: no `.bin`, no estimate, and no
            node's cosine and unit.
    """

    model: Path
    calibration: Path
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    nv12_range: Literal["full", "limited"] = "full"
    nodes: tuple[NodeRule, ...] = ()
    all_int16: bool = False
    calibration_type: str = "max"
    max_percentile: float | None = None
    per_channel: bool = False
    asymmetric: bool = False
    bias_correction: bool = False
    compile_mode: Literal["latency", "bandwidth"] = "latency"
    optimize_level: Literal["O0", "O1", "O2", "O3"] = "O2"
    jobs: int = 0
    quantize_only: bool = False


@dataclass(frozen=True)
class NodeReport:
    """What became of a node, by the compiler's own table.

    Attributes:
        name: Its name in the quantised model.
        op: Its operator there.
        unit: Where it runs; empty where only quantising was asked for.
        input_type: Type of its inputs; of several, the widest.
        output_type: Type of its outputs.
        cosine: Cosine of its output against the float model's on the first calibration images.
    """

    name: str
    op: str
    unit: Literal["BPU", "CPU", ""]
    input_type: NodeType
    output_type: NodeType
    cosine: float | None


@dataclass(frozen=True)
class Layer:
    """A layer of the compiled model. Layers overlap: their times add up to more than the model's.

    Attributes:
        name: Its name; one node may become several layers.
        kind: Operator of the node it belongs to; empty where the compiler made the layer.
        microseconds: The longer of `compute` and `transfer`.
        waits_for: `layout` for a layer that only moves values about, `ddr` where loading and
            storing takes longer than computing, else `compute`; empty where both take nothing.
        ddr_bytes: Its share of the model's traffic, by the time of its loading and storing.
        compute: Microseconds of computing, without memory's.
        transfer: Microseconds of loading and storing.
    """

    name: str
    kind: str
    microseconds: float
    waits_for: WaitsFor
    ddr_bytes: int
    compute: float = 0.0
    transfer: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """The compiler's estimate of one frame on the BPU. What runs on the CPU is not in it.

    Attributes:
        milliseconds: Latency, the sum over all subgraphs.
        fps: Frames per second of one core.
        ddr_bytes: Bytes loaded and stored.
        layers: All layers of all subgraphs, in the compiler's order.
        subgraphs: Pieces the model was cut into; 1 where all of it runs on the BPU.
    """

    milliseconds: float
    fps: float
    ddr_bytes: int
    layers: tuple[Layer, ...]
    subgraphs: int


@dataclass(frozen=True)
class CompileResult:
    """A compiled or only quantised model, and what the compiler says of it.

    Attributes:
        bin: The compiled model; None where only quantising was asked for.
        quantized: The quantised model, ONNX with the vendor's operators.
        original_float: The model as the compiler read it.
        optimized: The same, with the compiler's own rewrites.
        calibrated: The same, with the ranges of all tensors.
        nodes: What became of each node.
        march: The BPU it was compiled for.
        gelus_fused: GELUs that became one lookup.
        gelus: GELUs of the model.
        estimate: None where only quantising was asked for.
        log: The vendor's log.
        seconds: How long it took.
        versions: Versions of the vendor's packages by name.
    """

    bin: Path | None
    quantized: Path
    original_float: Path
    optimized: Path
    calibrated: Path
    nodes: tuple[NodeReport, ...]
    march: str
    gelus_fused: int
    gelus: int
    estimate: Estimate | None
    log: Path
    seconds: float
    versions: Mapping[str, str]


@dataclass(frozen=True)
class RunRequest:
    """Frames for a quantised model.

    Attributes:
        model: The quantised model.
        frames: A `.npy` file, uint8 (N, H * 3 / 2, W): NV12.
        first: The first frame to run.
        last: The frame after the last.
        logits: The `.npy` file to write, float32 (last - first, classes).
    """

    model: Path
    frames: Path
    first: int
    last: int
    logits: Path


@dataclass(frozen=True)
class RunResult:
    """Frames that ran.

    Attributes:
        frames: How many.
    """

    frames: int


@dataclass(frozen=True)
class ExamineRequest:
    """Packages to be examined.

    Attributes:
        packages: Their names.
    """

    packages: tuple[str, ...]


@dataclass(frozen=True)
class PackageReport:
    """An installed package.

    Attributes:
        name: Its name.
        version: Its version; None where it is not installed.
        files: How many files its own list has.
        damaged: The first of them that is missing or has another hash; empty where all are well.
    """

    name: str
    version: str | None
    files: int
    damaged: str


@dataclass(frozen=True)
class ExamineResult:
    """What the toolchain's Python has.

    Attributes:
        python: Its version.
        packages: The packages that were asked for.
        stand_ins: Packages that are stood in for.
    """

    python: str
    packages: tuple[PackageReport, ...]
    stand_ins: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How far a program is.

    Attributes:
        step: What it does now, to follow "while it".
        begin: Share of the whole that was done before this step, 0 to 1.
        end: The same, after it.
        fraction: Share of the step that is done.
    """

    step: str
    begin: float
    end: float
    fraction: float

    @property
    def total(self) -> float:
        """Share of the whole that is done, 0 to 1."""
        return min(self.end, self.begin + (self.end - self.begin) * self.fraction)


@dataclass(frozen=True)
class Failure:
    """Why a program gave up.

    Attributes:
        step: What it did then, to follow "while it"; empty before the first step.
        reason: Why, in the vendor's words or the system's.
        error_number: The system's number of the error; 0 where it is none of the system's.
        is_sentence: Whether the reason says all that the user needs.
    """

    step: str
    reason: str
    error_number: int = 0
    is_sentence: bool = False


Message: TypeAlias = Progress | Failure | Mapping[str, Any]
"""What a program sends: progress, a failure, or its result, which `decode` reads."""


def encode(request: Any, **more: str) -> str:
    """Write a request as one line of JSON.

    Args:
        request: A `CompileRequest`, a `RunRequest` or another dataclass of plain values.
        more: More fields.
    """
    return json.dumps({"version": VERSION, **plain(request), **more})


def parse(line: str) -> Message:
    """Read a line that a program sent.

    Raises:
        ToolchainError: It is no message of this version.
    """
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict) or "version" not in message or "kind" not in message:
        raise ToolchainError(f"a program of the toolchain answered {brief(line)}: no message")
    version, kind = message.pop("version"), message.pop("kind")
    if version != VERSION:
        raise ToolchainError(
            f"a program of the toolchain speaks version {version!r} of our messages and this "
            f"package version {VERSION}: install efv2_ros anew"
        )
    if kind == "progress":
        return decode(Progress, message)
    if kind == "failure":
        return decode(Failure, message)
    if kind == "result":
        return message
    raise ToolchainError(f"a program of the toolchain sent a message of kind {kind!r}")
