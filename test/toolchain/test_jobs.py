"""The toolchain itself: compile models, run the quantised ones, and what can go wrong."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from efv2_ros.toolchain import jobs  # noqa: E402
from efv2_ros.toolchain.environment import Stopped, ToolchainError  # noqa: E402
from efv2_ros.toolchain.jobs import (  # noqa: E402
    CompileRequest,
    NodeRule,
    compile_model,
    run_quantized,
)

pytestmark = pytest.mark.toolchain

MEAN = (123.675, 116.28, 103.53)
SCALE = (0.01712475, 0.017507, 0.01742919)
S0_SOFTMAX = "/stages/stages.3/downsample/attn/Softmax"


def pictures(count, side, seed):
    """Smooth random pictures: float32 (N, 3, side, side), RGB from 0 to 255."""
    random = np.random.RandomState(seed)
    coarse = random.uniform(0, 255, (count, 3, side // 16, side // 16))
    fine = np.kron(coarse, np.ones((1, 1, 16, 16)))
    return (0.8 * fine + random.uniform(0, 51, fine.shape)).astype(np.float32)


def calibration(folder, side):
    folder.mkdir()
    for number, picture in enumerate(pictures(3, side, 0)):
        picture.tofile(folder / f"{number}.rgb")
    return folder


def nv12(images):
    """Full-range NV12 of pictures."""
    r, g, b = images.transpose(1, 0, 2, 3)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    chroma = np.stack([(b - y) / 1.772, (r - y) / 1.402], axis=-1)
    count, height, width = y.shape
    half = chroma.reshape(count, height // 2, 2, width // 2, 2, 2).mean((2, 4)) + 128
    planes = np.concatenate([y, half.reshape(count, height // 2, width)], axis=1)
    return np.rint(planes).clip(0, 255).astype(np.uint8)


def small_model(path, opset=11, side=64, op=None, batch=1):
    """A plain convolutional classifier of seven classes."""
    random = np.random.RandomState(0)
    weights = {
        "w1": random.standard_normal((8, 3, 3, 3)).astype(np.float32) * 0.3,
        "w2": random.standard_normal((7, 8, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["data", "w1"], ["a"], name="conv1", kernel_shape=[3, 3],
                         strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node(op or "Relu", ["a"], ["b"], name="activation"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Conv", ["c", "w2"], ["d"], name="conv2", kernel_shape=[1, 1]),
        helper.make_node("Flatten", ["d"], ["output"], name="flatten"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 7])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=7), path)
    return path


@pytest.fixture
def small(toolchain, tmp_path):
    """A request for the small model, at O0."""
    return CompileRequest(
        model=small_model(tmp_path / "small.onnx"),
        calibration=calibration(tmp_path / "calibration", 64),
        mean=MEAN,
        scale=SCALE,
        optimize_level="O0",
    )


@pytest.fixture(scope="module")
def s0(installed_toolchain, tmp_path_factory):
    """A request for EfficientFormerV2-S0."""
    from efv2_ros.models.efficientformerv2.builder import seeded_state, write

    folder = tmp_path_factory.mktemp("s0")
    write(folder / "s0.onnx", seeded_state("s0"))
    return CompileRequest(
        model=folder / "s0.onnx",
        calibration=calibration(folder / "calibration", 224),
        mean=MEAN,
        scale=SCALE,
        max_percentile=0.9999,
        optimize_level="O1",
        nodes=(NodeRule(S0_SOFTMAX, "BPU", "int16", "int16"),),
    )


@pytest.fixture(scope="module")
def compiled(s0, installed_toolchain, tmp_path_factory):
    """S0 compiled at O1, and the steps on the way."""
    folder, steps = tmp_path_factory.mktemp("compiled"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFV2_TOOLCHAIN_PYTHON", str(installed_toolchain))
        result = compile_model(s0, folder, on_progress=lambda *step: steps.append(step))
    return result, steps


def sentence(request, folder, **options):
    with pytest.raises(ToolchainError) as caught:
        compile_model(request, folder, **options)
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    assert not list(folder.glob(".toolchain_*")) if folder.is_dir() else True
    return message


def descendants(pid):
    """Processes below a process, with their command lines."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes().decode().replace("\0", " ")
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = (int(fields[1]), command)
    found, todo = {}, [pid]
    while todo:
        above = todo.pop()
        for child, (parent, command) in parents.items():
            if parent == above:
                found[child] = command
                todo.append(child)
    return found


def test_s0_compiles_and_the_compiler_tells(compiled):
    result, steps = compiled
    assert result.march == "bayes-e"
    assert (result.gelus, result.gelus_fused) == (35, 35)
    for path in (result.bin, result.quantized, result.original_float, result.optimized,
                 result.calibrated, result.log):  # fmt: skip
        assert path.stat().st_size > 1000
    softmax = [each for each in result.nodes if each.name.startswith(S0_SOFTMAX)]
    assert softmax and {each.input_type for each in softmax} == {"int16"}
    cpu = {each.name: each.op for each in result.nodes if each.unit == "CPU"}
    assert len(cpu) == 4 and set(cpu.values()) == {"Softmax"}  # those without a rule
    assert all(each.cosine is None or each.cosine > 0.9 for each in result.nodes)
    assert {"hbdk", "hb_mapper", "horizon_nn"} <= set(result.versions)

    estimate = result.estimate
    assert estimate.subgraphs == 5
    assert 1 < estimate.milliseconds < 100 and estimate.ddr_bytes > 1e6
    assert {each.waits_for for each in estimate.layers} >= {"compute", "ddr", "layout"}
    assert any(each.name == "/stem/conv1/conv/Conv" for each in estimate.layers)

    shares = [share for _, share in steps]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] > 0.9
    assert {"calibrating the model", "compiling the model"} <= {step for step, _ in steps}


def test_frames_run_in_several_processes_and_in_order(compiled, s0, toolchain, monkeypatch):
    result, _ = compiled
    images = pictures(9, 224, 1)
    monkeypatch.setattr(jobs, "_parts", lambda count: [(0, 4), (4, 9)])
    shares = []
    logits = run_quantized(
        result.quantized, nv12(images), on_progress=lambda step, share: shares.append(share)
    )
    assert logits.shape == (9, 1000) and logits.dtype == np.float32
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    monkeypatch.setattr(jobs, "_parts", lambda count: [(0, count)])
    assert (run_quantized(result.quantized, nv12(images[5:6]))[0] == logits[5]).all()

    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(s0.model), providers=["CPUExecutionProvider"])
    mean, scale = (np.reshape(each, (1, 3, 1, 1)).astype(np.float32) for each in (MEAN, SCALE))
    for picture, ours in zip(images, logits, strict=True):
        theirs = session.run(None, {"data": (picture[None] - mean) * scale})[0][0]
        cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert cosine > 0.9


def test_quantising_alone_gives_the_same_model(compiled, s0, toolchain, tmp_path):
    result, _ = compiled
    alone = compile_model(replace(s0, quantize_only=True), tmp_path / "out")
    assert alone.bin is None and alone.estimate is None
    assert alone.quantized.read_bytes() == result.quantized.read_bytes()
    assert {each.name for each in result.nodes} <= {each.name for each in alone.nodes}
    assert not list((tmp_path / "out").glob("*.bin"))


def test_ranges_of_least_error(compiled, s0, toolchain, tmp_path):
    """They are the quantised model's, and tensors that share a range still do."""
    clipped, _ = compiled
    request = replace(s0, quantize_only=True, calibration_type="mse", max_percentile=None)
    steps = []
    least = compile_model(request, tmp_path / "out", on_progress=lambda *step: steps.append(step))
    assert "choosing the ranges of the activations" in {step for step, _ in steps}
    assert [share for _, share in steps] == sorted(share for _, share in steps)
    before, after = (ranges(each.calibrated) for each in (clipped, least))
    assert before.keys() == after.keys()
    assert before["data"] == after["data"]
    reciprocals = [name for name in before if name.endswith("_reciprocal")]
    assert reciprocals
    assert {before[name] for name in reciprocals} == {1.0}
    assert all(after[name] < 1 for name in reciprocals)
    # Tensors that no longer share a range would need nodes to convert them.
    models = [onnx.load(str(each.quantized)) for each in (clipped, least)]
    counts = [sum(node.op_type == "HzRequantize" for node in each.graph.node) for each in models]
    assert counts[1] <= counts[0] + 2


def ranges(path):
    """The largest absolute value of each activation of a calibrated model."""
    model = onnx.load(str(path))
    weights = {each.name for each in model.graph.initializer}
    return {
        node.input[0]: next(each.floats[0] for each in node.attribute if each.name == "thresholds")
        for node in model.graph.node
        if node.op_type == "HzCalibration" and node.input[0] not in weights
    }


def test_frames_that_do_not_fit_get_a_sentence(compiled, toolchain):
    result, _ = compiled
    with pytest.raises(ToolchainError, match=r"inputs of \[1, 64, 64, 3\]"):
        run_quantized(result.quantized, np.zeros((1, 96, 64), np.uint8))


def test_no_frames_give_no_logits(compiled, toolchain):
    result, _ = compiled
    assert run_quantized(result.quantized, np.zeros((0, 336, 224), np.uint8)).shape[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"nv12_range": "limited", "all_int16": True, "compile_mode": "bandwidth"},
        {"asymmetric": True, "bias_correction": True, "per_channel": True, "optimize_level": "O2"},
        {"calibration_type": "kl"},
    ],
)
def test_a_small_model_with_each_option(small, tmp_path, options):
    result = compile_model(replace(small, **options), tmp_path / "out")
    assert result.bin.stat().st_size > 1000
    assert result.estimate.subgraphs == 1
    types = {each.input_type for each in result.nodes if "conv" in each.name}
    assert types == {"int16" if options.get("all_int16") else "int8"}
    logits = run_quantized(result.quantized, nv12(pictures(2, 64, 1)))
    assert logits.shape == (2, 7)
    assert not np.array_equal(logits[0], logits[1])


def kill(name):
    """Have the next step that compiles kill the process of that name."""

    def on_progress(step, share):
        if step == "compiling the model":
            for pid, command in descendants(os.getpid()).items():
                if name in command:
                    os.kill(pid, signal.SIGKILL)

    return on_progress


def test_a_killed_compiler_gets_a_sentence(s0, toolchain, tmp_path):
    request = replace(s0, optimize_level="O2")
    message = sentence(request, tmp_path / "out", on_progress=kill("bin/hbdk-cc"))
    assert "hbdk-cc was killed by SIGKILL: the machine may be out of memory" in message
    assert "while it was compiling the model" in message
    assert not (tmp_path / "out" / "model.bin").exists()


def test_a_killed_program_gets_a_sentence(small, tmp_path):
    message = sentence(small, tmp_path / "out", on_progress=kill("compile.py"))
    assert message == (
        "the toolchain was killed by SIGKILL: the machine may be out of memory "
        "while it was compiling the model"
    )


def test_stopping_ends_all_within_a_second(s0, toolchain, tmp_path):
    compiling, asked = [], []

    def should_stop():
        if compiling and any("hbdk-cc" in each for each in descendants(os.getpid()).values()):
            asked.append(time.monotonic())
        return bool(asked)

    with pytest.raises(Stopped):
        compile_model(
            replace(s0, optimize_level="O2"),
            tmp_path / "out",
            on_progress=lambda step, share: compiling.extend([step] * step.startswith("compil")),
            should_stop=should_stop,
        )
    assert time.monotonic() - asked[0] < 1
    assert not any("hbdk" in each for each in descendants(1).values() if str(tmp_path) in each)


def test_an_interrupt_ends_all(small, tmp_path):
    def interrupt(step, share):
        if share > 0.05:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_model(small, tmp_path / "out", on_progress=interrupt)
    assert not any(str(tmp_path) in each for each in descendants(os.getpid()).values())


def test_a_truncated_model(small, tmp_path):
    content = small.model.read_bytes()
    small.model.write_bytes(content[: len(content) // 2])
    assert sentence(small, tmp_path / "out") == f"{small.model} is no whole ONNX file"


def test_a_missing_model_and_missing_images(small, tmp_path):
    message = sentence(replace(small, model=tmp_path / "none.onnx"), tmp_path / "out")
    assert "none.onnx" in message
    message = sentence(replace(small, calibration=tmp_path / "none"), tmp_path / "out")
    assert "none" in message
    (tmp_path / "empty").mkdir()
    message = sentence(replace(small, calibration=tmp_path / "empty"), tmp_path / "out")
    assert message == f"there is no calibration image in {tmp_path / 'empty'}"


def test_a_dynamic_shape(small, tmp_path):
    small_model(small.model, side="side")
    message = sentence(small, tmp_path / "out")
    assert "takes 1 x 3 x side x side, and a fixed shape" in message


def test_another_opset(small, tmp_path):
    small_model(small.model, opset=18)
    assert "opset" in sentence(small, tmp_path / "out").lower()


def test_an_operator_that_the_toolchain_does_not_know(small, tmp_path):
    small_model(small.model, op="Hardmax")
    assert "Hardmax" in sentence(small, tmp_path / "out")
    small_model(small.model, op="Hardmax2")
    assert "No Op registered for Hardmax2" in sentence(small, tmp_path / "out")


def test_a_rule_for_a_node_that_is_not_there(small, tmp_path):
    rules = (NodeRule("nowhere", "BPU", "int16", None),)
    message = sentence(replace(small, nodes=rules), tmp_path / "out")
    assert message == f"{small.model} has no node nowhere, which a rule names"


def test_images_of_another_size(small, tmp_path):
    np.zeros(10, np.float32).tofile(small.calibration / "9.rgb")
    message = sentence(small, tmp_path / "out")
    assert "9.rgb is no calibration image: a *.rgb file of 49152 bytes" in message


def test_folders_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in sentence(small, tmp_path / "file" / "out")
    message = sentence(small, Path("/proc/efv2"))
    assert message.startswith("cannot write /proc/efv2: ")


def test_no_space(s0, toolchain, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    try:
        message = sentence(s0, tmp_path / "out")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert message.startswith(f"no space is left on the disk of {tmp_path}/out")


def test_a_second_time_in_the_same_folder(small, tmp_path):
    first = compile_model(small, tmp_path / "out")
    before = first.quantized.read_bytes()
    (tmp_path / "out" / "older_subgraph_1.json").write_text("{}")
    second = compile_model(replace(small, max_percentile=0.5), tmp_path / "out")
    assert second.quantized.read_bytes() != before
    assert second.estimate.subgraphs == 1
