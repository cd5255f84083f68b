"""A recorded compiler at the boundary to the toolchain's process, and photos to calibrate with."""

import json
from dataclasses import replace
from pathlib import Path

import bag_maker
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from small_cnn import small_cnn

from efv2_ros.cli.main import main
from efv2_ros.quantize import build, fidelity
from efv2_ros.toolchain.environment import Stopped, ToolchainError
from efv2_ros.toolchain.protocol import CompileResult
from efv2_ros.toolchain.typed_json import decode

RECORDED = Path(__file__).parent / "recorded" / "small_cnn.json"


class Compiler:
    """Answers as the toolchain did for the small CNN, and counts what it is asked.

    Attributes:
        requests: All requests to compile.
        runs: Number of calls to run a quantised model.
        changes: Fields of the result that differ from the recorded one.
        error: Raised by the next compilation, after it has written some of its files.
        noise: Standard deviation of what quantising adds to the logits.
    """

    def __init__(self):
        self.requests, self.runs, self.changes, self.error, self.noise = [], 0, {}, None, 0.01
        self.models = []

    def compile_model(self, request, folder, *, on_progress, should_stop):
        self.requests.append(request)
        images = sorted(request.calibration.glob("*.rgb"))
        assert images
        size = images[0].stat().st_size
        assert size == 3 * 64 * 96 * 4
        model = request.model.read_bytes()
        self.models.append(model)
        on_progress("compiling the model", 0.5)
        (folder / "model.bin").write_bytes(b"\x08\x01\x1a\x06\x12\x04main")
        if self.error is not None:
            raise self.error
        if should_stop():
            raise Stopped
        (folder / "model_quantized_model.onnx").write_bytes(model)
        (folder / "toolchain.log").write_text("log")
        (folder / "left_over.html").write_text("x" * 1000)
        fields = json.loads(RECORDED.read_text())
        for name in ("bin", "quantized", "original_float", "optimized", "calibrated", "log"):
            fields[name] = str(folder / fields[name])
        return replace(decode(CompileResult, fields), **self.changes)

    def run_quantized(self, model, nv12, *, should_stop, on_progress):
        """The float model's logits, as good as any, with noise."""
        import onnx
        import onnxruntime

        from efv2_ros.models.catalog import IMAGENET_MEAN, IMAGENET_SCALE
        from efv2_ros.quantize.calibration import rgb_from_nv12
        from efv2_ros.runtimes.base import ImageInput

        self.runs += 1
        proto = onnx.load(str(model))
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        mean, scale = (
            np.array(each, np.float32)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_SCALE)
        )
        logits = []
        for number, each in enumerate(nv12):
            if should_stop():
                raise Stopped
            rgb = rgb_from_nv12(each, ImageInput(64, 96))
            logits.append(session.run(None, {"image": (rgb - mean) * scale})[0].reshape(-1))
            on_progress("running", number / len(nv12))
        random = np.random.default_rng(0)
        clean = np.stack(logits)
        return (clean + random.normal(0, self.noise, clean.shape)).astype(np.float32)


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """The recorded compiler in place of the toolchain."""
    found = Compiler()
    monkeypatch.setattr(build, "compile_model", found.compile_model)
    monkeypatch.setattr(fidelity, "run_quantized", found.run_quantized)
    python = tmp_path / "toolchain" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    packages = tmp_path / "toolchain" / "lib" / "python3.10" / "site-packages"
    (packages / "dgdk-1.0.0.dist-info").mkdir(parents=True)
    monkeypatch.setenv("EFV2_TOOLCHAIN_PYTHON", str(python))
    return found


@pytest.fixture
def photos(tmp_path):
    """60 photos in folders named by three of the CNN's classes, each unlike the others."""
    folder = tmp_path / "photos"
    for number in range(60):
        path = folder / str(number % 3) / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), bag_maker.picture(number, 120, 160))
    return folder


@pytest.fixture
def model(tmp_path):
    return small_cnn(tmp_path / "cnn.onnx")


@pytest.fixture
def quantize(model, photos, tmp_path):
    """Run the command: `quantize(...)`; later arguments win."""

    def quantize(*arguments, given=None, calib=photos, recipe="plain", out=tmp_path / "out"):
        words = ["quantize", given or model, "--calib", calib, "--out", out]
        words += ["--recipe", recipe] if recipe else []
        return CliRunner().invoke(main, [*map(str, words), *map(str, arguments)])

    return quantize


def failing(message="the compiler failed while it was compiling the model: out of luck"):
    return ToolchainError(message)
