"""Stand-ins for what only the board has: the BPU's C library and the two vendor modules.

`python -m standins COMMAND...` in the folder `test/support` runs a command with all of them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import helper
from tiny_models import save

FOLDER = Path(__file__).parent
VENDOR = FOLDER / "vendor"
VENDOR_MODULES = ("_dnn", "hbm_runtime", "hobot_dnn", "hobot_dnn_rdkx5")
LIBRARY_VARIABLE = "LIBDNN_STANDIN_LIBRARY"
"""Tells the vendor modules' stand-ins where the library is."""

BLOCK = 32
S8, S16, F32, S32 = 8, 11, 13, 14
RGB_FROM_YUV = np.array([[1.0, 0.0, 1.4017], [1.0, -0.3437, -0.7142], [1.0, 1.7722, 0.0]])

# What the network does to R, G and B before it averages them.
MEAN, SCALE = (128.0,) * 3, (1 / 128,) * 3


def library(*options: str) -> Path:
    """The compiled C library, built once for each version of its source.

    Args:
        options: Further options for the compiler, such as `-fsanitize=address`.
    """
    sources = [FOLDER / "libdnn.c", FOLDER / "libdnn.map"]
    content = [*(each.read_bytes() for each in sources), *map(str.encode, options)]
    version = hashlib.sha256(b"".join(content)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir(), f"efv2-standins-{os.getuid()}-{version}")
    target = folder / "libdnn.so"
    if not target.exists():
        folder.mkdir(exist_ok=True)
        part = folder / f"libdnn.{os.getpid()}.so"
        subprocess.run(
            [
                *compiler(), *options, "-O2", "-Wall", "-Wextra",
                "-Wno-missing-field-initializers", "-shared", "-fPIC", "-pthread",
                f"-Wl,--version-script={sources[1]}", "-o", part, sources[0],
            ],
            check=True,
        )  # fmt: skip
        part.replace(target)
    return target


def compiler() -> list[str]:
    """The command that compiles C."""
    return (os.environ.get("CC") or shutil.which("cc") or "gcc").split()


def environment(
    *, numbers: Path | None = None, built: Path | None = None, **settings: int
) -> dict[str, str]:
    """The environment of a process that finds the stand-ins where the board has the real ones.

    Args:
        numbers: File that gets the process's settings and counters, for `Numbers`.
        built: The library, if it is not that of `library()`.
        settings: See `libdnn.c`.
    """
    built = built or library()

    def first(name: str, entry: Path) -> str:
        return os.pathsep.join(filter(None, [str(entry), os.environ.get(name, "")]))

    return {
        **os.environ,
        "LD_LIBRARY_PATH": first("LD_LIBRARY_PATH", built.parent),
        "PYTHONPATH": first("PYTHONPATH", VENDOR),
        LIBRARY_VARIABLE: str(built),
        **({"LIBDNN_STANDIN_NUMBERS": str(numbers)} if numbers else {}),
        "LIBDNN_STANDIN": " ".join(f"{name}={value}" for name, value in settings.items()),
    }


def sanitizer() -> dict[str, str] | None:
    """The environment of a Python that reports misuse of memory by and of the C library.

    Returns:
        The variables; None if the compiler has no AddressSanitizer.
    """
    # libstdc++ too, because the sanitizer looks for its functions once, at the start.
    found = [
        subprocess.run(
            [*compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=False
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    if not all(Path(each).is_absolute() for each in found):
        return None
    return {
        **environment(built=library("-fsanitize=address", "-g")),
        "LD_PRELOAD": " ".join(str(Path(each).resolve()) for each in found),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own, most of them
        "PYTHONMALLOC": "malloc",
    }


FUNCTIONS = (
    "hbDNNInitializeFromFiles", "hbDNNRelease", "hbDNNGetModelNameList", "hbDNNGetModelHandle",
    "hbDNNGetInputCount", "hbDNNGetOutputCount", "hbDNNGetInputTensorProperties",
    "hbDNNGetOutputTensorProperties", "hbDNNInfer", "hbDNNWaitTaskDone", "hbDNNReleaseTask",
    "hbSysAllocCachedMem", "hbSysFlushMem", "hbSysFreeMem",
)  # fmt: skip
"""The functions that can have random faults, each at the setting of its name."""

DEFAULTS = {
    "duration_us": 0, "task_limit": 32, "open_error": 0, "alloc_error_at": 0, "infer_error_at": 0,
    "wait_error_at": 0, "hang_at": 0, "dead_at": 0, "seed": 1, "slow_us": 50_000,
    "hang_us": 1_000_000, **dict.fromkeys(FUNCTIONS, 0),
}  # fmt: skip


class Numbers:
    """The settings and counters of a process that has them in a file; see `environment`."""

    def __init__(self, path: Path) -> None:
        layout = np.dtype([("name", "S40"), ("value", "<i8"), ("faults", "<i8")])
        self._entries = np.memmap(path, layout, "r+")
        self._places = {each.decode(): n for n, each in enumerate(self._entries["name"])}

    def set(self, **settings: int) -> None:
        for name, value in settings.items():
            self._entries["value"][self._places[name]] = value

    def __getitem__(self, name: str) -> int:
        return int(self._entries["value"][self._places[name]])

    def faults(self, function: str) -> int:
        """How many random faults a function had."""
        return int(self._entries["faults"][self._places[function]])


class Controls:
    """The stand-in's settings and counters in this process; see `libdnn.c`.

    Args:
        built: The library, if it is not that of `library()`.
    """

    def __init__(self, built: Path | None = None) -> None:
        self._library = ctypes.CDLL(str(built or library()))
        self._library.standin_set.argtypes = (ctypes.c_char_p, ctypes.c_int64)
        self._library.standin_get.argtypes = (ctypes.c_char_p,)
        self._library.standin_get.restype = ctypes.c_int64

    def set(self, **settings: int) -> None:
        for name, value in settings.items():
            self._library.standin_set(name.encode(), value)

    def reset(self) -> None:
        """Defaults again; what a test lost or misused is not the next one's."""
        self.set(**DEFAULTS, open_tasks=0, wild_writes=0, reused_memory=0, overruns=0)

    def __getitem__(self, name: str) -> int:
        value: int = self._library.standin_get(name.encode())
        return value


def bin_model(path: Path, **settings: int) -> Path:
    """Write a model file for the stand-in; see `read_model` in `libdnn.c` for the settings."""
    text = " ".join(["LIBDNN-STANDIN", *(f"{k}={v}" for k, v in settings.items()), ""]).encode()
    assert len(text) < 2**14
    # Field 3 of runtime.proto's ModelProto, the graph: what makes a file a .bin for the BPU.
    path.write_bytes(bytes([0x1A, len(text) & 0x7F | 0x80, len(text) >> 7]) + text)
    return path


def weights(features: int, classes: int) -> np.ndarray:
    count = np.arange(1, features * classes + 1, dtype=np.uint32)
    hashed = (count * np.uint32(2654435761)) >> np.uint32(8)
    return (hashed.astype(np.float32) / np.float32(2**24) - np.float32(0.5)).reshape(features, -1)


def onnx_model(path: Path, classes: int = 1000, height: int = 224, width: int = 224) -> Path:
    """The stand-in's network in ONNX, for `MEAN` and `SCALE`."""
    features = 3 * (height // BLOCK) * (width // BLOCK)
    nodes = [
        helper.make_node(
            "AveragePool", ["data"], ["means"], kernel_shape=[BLOCK] * 2, strides=[BLOCK] * 2
        ),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("MatMul", ["features", "weights"], ["output"]),
    ]
    constants = {"weights": weights(features, classes)}
    return save(path, nodes, [1, 3, height, width], [1, classes], constants)


def logits(nv12: np.ndarray, classes: int = 1000) -> np.ndarray:
    """The stand-in's network in float64."""
    height, width = nv12.shape[0] * 2 // 3, nv12.shape[1]
    rows, columns = height // BLOCK, width // BLOCK
    pairs = nv12[height:].reshape(height // 2, width // 2, 2).astype(np.float64) - 128
    half = BLOCK // 2
    y = nv12[:height].astype(np.float64).reshape(rows, BLOCK, columns, BLOCK).mean((1, 3))
    uv = pairs.reshape(rows, half, columns, half, 2).mean((1, 3))
    yuv = np.stack([y, uv[..., 0], uv[..., 1]])
    rgb = (np.einsum("cp,prk->crk", RGB_FROM_YUV, yuv) - 128) / 128
    return rgb.reshape(-1) @ weights(rgb.size, classes).astype(np.float64)


def images(count: int, height: int = 224, width: int = 224, seed: int = 0) -> list[np.ndarray]:
    """NV12 noise with a different colour in each block, so that logits lie well apart."""
    random = np.random.RandomState(seed)
    made = []
    for _ in range(count):
        blocks = random.randint(0, 200, (height * 3 // 2 // 16, width // 16))
        noise = random.randint(0, 56, (height * 3 // 2, width))
        made.append((np.kron(blocks, np.ones((16, 16), int)) + noise).astype(np.uint8))
    return made
