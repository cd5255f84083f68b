"""The toolchain's work: compile a model, run frames through a quantised one."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efv2_ros.toolchain.environment import Stopped, ToolchainError
from efv2_ros.toolchain.process import Program, os_sentence, run_all
from efv2_ros.toolchain.protocol import (
    CompileRequest,
    CompileResult,
    Estimate,
    Layer,
    NodeReport,
    NodeRule,
    Progress,
    RunRequest,
    encode,
)
from efv2_ros.toolchain.typed_json import decode

__all__ = [
    "CompileRequest",
    "CompileResult",
    "Estimate",
    "Layer",
    "NodeReport",
    "NodeRule",
    "OnProgress",
    "Stopped",
    "ToolchainError",
    "compile_model",
    "run_quantized",
]

OnProgress = Callable[[str, float], None]
"""Gets the step, to follow "while it was", and the share of the whole that is done, 0 to 1."""

_LOG = "toolchain.log"
_LEAST_FRAMES = 4  # of a process: it takes seconds to start
_PROCESS_BYTES = 1 << 30  # memory of a process that runs a model of the family


def compile_model(
    request: CompileRequest,
    folder: Path,
    *,
    on_progress: OnProgress = lambda step, share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CompileResult:
    """Quantise a model and compile it for the RDK X5.

    Args:
        request: The model and how to treat it.
        folder: Gets all files; created where it is missing. After an exception it holds at least
            the log.
        on_progress: Called in this thread.
        should_stop: Asked ten times a second.

    Raises:
        Stopped: `should_stop` returned True; no process is left.
        ToolchainUnavailableError: The toolchain is not installed.
        ToolchainError: The model cannot be compiled, the compiler was killed, the folder cannot
            be written or its disk is full.
    """
    folder = _make(folder)
    files = dataclasses.replace(
        request, model=request.model.resolve(), calibration=request.calibration.resolve()
    )
    log = folder / _LOG
    log.unlink(missing_ok=True)
    with (
        _temporary(folder) as temporary,
        Program(
            "compile.py", encode(files, folder=str(folder)), log=log, folder=temporary
        ) as program,
    ):
        answer = program.run(_total(on_progress), should_stop)
    return decode(CompileResult, {**answer, "log": str(log)})


def run_quantized(
    model: Path,
    nv12: NDArray[np.uint8],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: OnProgress = lambda step, share: None,
) -> NDArray[np.float32]:
    """Run frames through a quantised model, with the integers of the board.

    Args:
        model: The quantised model, ONNX.
        nv12: uint8 (N, H * 3 / 2, W): NV12 of the range that the model was compiled for.
        should_stop: Asked ten times a second.
        on_progress: Called in this thread.

    Returns:
        Logits, float32 (N, classes).

    Raises:
        Stopped: `should_stop` returned True; no process is left.
        ToolchainUnavailableError: The toolchain is not installed.
        ToolchainError: The model cannot be run on such frames, or a process was killed.
    """
    count = len(nv12)
    with _temporary(None) as folder:
        frames = folder / "frames.npy"
        try:
            np.save(frames, np.ascontiguousarray(nv12))
        except OSError as error:
            raise ToolchainError(os_sentence(error, frames)) from error
        parts = _parts(count)
        shares = [0.0] * len(parts)

        def note(part: int, progress: Progress) -> None:
            shares[part] = progress.total * (parts[part][1] - parts[part][0])
            on_progress(progress.step, sum(shares) / max(1, count))

        with ExitStack() as stack:
            programs = []
            for part, (first, last) in enumerate(parts):
                request = RunRequest(model.resolve(), frames, first, last, folder / f"{part}.npy")
                log = folder / f"{part}.log"
                program = Program("run_quantized.py", encode(request), log=log, folder=folder)
                programs.append(stack.enter_context(program))
            run_all(programs, note, should_stop)
        return np.concatenate([np.load(folder / f"{part}.npy") for part in range(len(parts))])


def _parts(count: int) -> list[tuple[int, int]]:
    """Share frames out to as many processes as there are cores and memory for."""
    memory = _free_memory() // _PROCESS_BYTES
    wanted = min(len(os.sched_getaffinity(0)), memory, -(-count // _LEAST_FRAMES))
    processes = max(1, wanted)
    bounds = [count * each // processes for each in range(processes + 1)]
    return list(pairwise(bounds))


def _free_memory() -> int:
    """Bytes that processes can have without swapping, the file cache included."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _total(on_progress: OnProgress) -> Callable[[Progress], None]:
    return lambda progress: on_progress(progress.step, progress.total)


def _make(folder: Path) -> Path:
    """Make a folder and return its full path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolchainError(os_sentence(error, folder)) from error
    return folder.resolve()


@contextmanager
def _temporary(parent: Path | None) -> Iterator[Path]:
    """A folder for temporary files, gone after the block."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".toolchain_", dir=parent))
    except OSError as error:
        place = parent or Path(tempfile.gettempdir())
        raise ToolchainError(os_sentence(error, place)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
