"""The BPU's runtimes against stand-ins with the same interfaces and the same vices."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import standins

from efv2_ros.runtimes import hobot_dnn
from efv2_ros.runtimes.base import (
    RUNTIMES,
    DeviceLostError,
    ImageInput,
    InferenceError,
    InferenceTimeoutError,
    ModelLoadError,
    RunOptions,
    RuntimeUnavailableError,
    open_runtime,
)
from efv2_ros.runtimes.libdnn import abi as libdnn_abi
from efv2_ros.runtimes.libdnn import runtime as libdnn
from efv2_ros.vision.planes import Nv12Planes

IMAGE = ImageInput(mean=standins.MEAN, scale=standins.SCALE)
NUMPY2 = int(np.__version__.split(".")[0]) >= 2
BPU_RUNTIMES = [
    "libdnn",
    "hbm",
    pytest.param("hobot_dnn", marks=pytest.mark.skipif(NUMPY2, reason="needs numpy < 2")),
]


@pytest.fixture
def model(tmp_path):
    """`model(**settings)` writes a model file for the stand-in; see `standins.bin_model`."""
    return lambda **settings: standins.bin_model(tmp_path / "model.bin", **settings)


@pytest.fixture
def opened(bpu, tmp_path):
    """`opened(path, name, **options)` opens a runtime that is closed at the end."""
    runtimes = []

    def opened(path, name="libdnn", image=IMAGE, **options):
        runtimes.append(open_runtime(path, image, name, RunOptions(**options)))
        return runtimes[-1]

    yield opened
    for runtime in runtimes:
        runtime.close()
    if libdnn._leftovers.now():  # else the next test would see them go
        bpu.set(**standins.DEFAULTS)
        last = opened(standins.bin_model(tmp_path / "last.bin"))
        last.infer(standins.images(1)[0])
        last.close()


def assert_logits(runtime, nv12, tolerance=1e-5):
    np.testing.assert_allclose(runtime.infer(nv12), standins.logits(nv12), atol=tolerance)


# All runtimes


@pytest.mark.numpy2
def test_every_runtime_gives_the_same_logits_for_the_same_frames(bpu, model, tmp_path, opened):
    path, onnx = model(), standins.onnx_model(tmp_path / "model.onnx")
    elsewhere = {"simulator", *(["hobot_dnn"] if NUMPY2 else [])}
    available = [name for name in RUNTIMES if name not in elsewhere]
    runtimes = [
        opened(path if RUNTIMES[name].model_format == "bin" else onnx, name, slots=2)
        for name in available
    ]
    assert [each.info.name for each in runtimes] == available
    assert {each.info.classes for each in runtimes} == {1000}
    for nv12 in standins.images(20):
        expected = standins.logits(nv12)
        for runtime in runtimes:
            result = runtime.infer(nv12)
            assert result.dtype == np.float32
            np.testing.assert_allclose(result, expected, atol=2e-5, err_msg=runtime.info.name)


@pytest.mark.parametrize("name", BPU_RUNTIMES)
def test_callers_side_by_side_get_their_own_results(opened, model, name):
    runtime = opened(model(), name, slots=4)
    images = standins.images(8)
    expected = [standins.logits(nv12) for nv12 in images]
    wrong = []

    def caller(offset):
        for n in range(100):
            index = (n * 3 + offset) % len(images)
            if np.abs(runtime.infer(images[index]) - expected[index]).max() > 1e-4:
                wrong.append(index)

    run_side_by_side(4, caller)
    assert not wrong


@pytest.mark.parametrize("name", BPU_RUNTIMES)
def test_logits_belong_to_the_caller(opened, model, name):
    runtime, (one, other) = opened(model(), name), standins.images(2)
    first = runtime.infer(one)
    runtime.infer(other)
    np.testing.assert_allclose(first, standins.logits(one), atol=1e-5)


@pytest.mark.parametrize("name", BPU_RUNTIMES)
@pytest.mark.parametrize(
    ("nv12", "reason"),
    [
        (np.zeros((334, 224), np.uint8), "shape"),  # too short: the rest would be the last frame's
        (np.zeros((338, 224), np.uint8), "shape"),  # too long: it would overrun the memory
        (np.zeros((336, 224), np.float32), "float32"),
        (np.zeros((336, 448), np.uint8)[:, ::2], "C-contiguous"),
        (bytes(75264), "bytes"),
        (None, "NoneType"),
    ],
    ids=["short", "long", "float", "strided", "bytes", "none"],
)
def test_what_would_be_misread_is_refused(opened, model, name, nv12, reason):
    runtime, image = opened(model(), name), standins.images(1)[0]
    runtime.infer(image)
    with pytest.raises(ValueError, match=reason):
        runtime.infer(nv12)
    assert_logits(runtime, image)


def test_an_image_that_cannot_be_committed_is_named_and_the_next_one_works(
    opened, model, monkeypatch
):
    runtime, image = opened(model()), standins.images(1)[0]
    real = libdnn_abi.Libdnn.call

    def call(library, name, *arguments):
        if name == "hbSysFlushMem":
            raise libdnn_abi.DnnError(name, -1, "refused")
        return real(library, name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(libdnn_abi.Libdnn, "call", call)
        with runtime.slot() as slot, pytest.raises(InferenceError, match="hbSysFlushMem"):
            slot.commit()
    assert_logits(runtime, image)


@pytest.mark.parametrize("name", BPU_RUNTIMES)
def test_a_failing_inference_is_named_and_the_next_one_works(bpu, opened, model, name):
    runtime, image = opened(model(), name), standins.images(1)[0]
    for fault in ("infer_error_at", "wait_error_at"):
        bpu.set(**{fault: 1})
        # hobot_dnn keeps the code to itself, in its output to stderr.
        reason = "forward" if name == "hobot_dnn" else "hbDNN(Infer|WaitTaskDone).*-6000012"
        with pytest.raises(InferenceError, match=reason):
            runtime.infer(image)
        assert_logits(runtime, image)
    assert bpu["open_tasks"] == (1 if name == "hobot_dnn" else 0)


@pytest.mark.parametrize("name", BPU_RUNTIMES)
def test_core_and_priority_reach_the_bpu(bpu, opened, model, name):
    image = standins.images(1)[0]
    opened(model(), name).infer(image)
    assert (bpu["core"], bpu["priority"]) == (0, 0)
    opened(model(), name, bpu_core=0, bpu_priority=77).infer(image)
    assert (bpu["core"], bpu["priority"]) == (1, 77)


@pytest.mark.parametrize("name", BPU_RUNTIMES)
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"width": 256}, "224x224"),
        ({"inputs": 2}, "input"),
        ({"outputs": 2}, "output"),
        ({"compiler": 2}, "-6000014|hbDNNInitializeFromFiles failed"),
    ],
    ids=["size", "inputs", "outputs", "compiler"],
)
def test_models_the_node_cannot_use_are_refused(bpu, opened, model, name, settings, reason):
    with pytest.raises(ModelLoadError, match=reason) as caught:
        opened(model(**settings), name)
    assert "model.bin" in str(caught.value)


@pytest.mark.parametrize("name", [each for each in BPU_RUNTIMES if each != "hbm"])
def test_a_batch_of_images_is_refused(opened, model, name):
    with pytest.raises(ModelLoadError, match=r"\(4, 3, 224, 224\) and not one 224x224 image"):
        opened(model(batch=4), name)


@pytest.mark.parametrize("name", [each for each in BPU_RUNTIMES if each != "hbm"])
def test_models_that_take_other_pixels_are_refused(bpu, opened, model, name):
    """hbm_runtime does not say what it takes."""
    with pytest.raises(ModelLoadError, match=r"not NV12.*input_type_rt: nv12"):
        opened(model(input=4), name)


@pytest.mark.parametrize("name", BPU_RUNTIMES)
def test_files_that_cannot_be_opened(bpu, opened, tmp_path, name):
    with pytest.raises(ModelLoadError, match=r"absent\.bin.*(-6000006|No such file)"):
        opened(tmp_path / "absent.bin", name)
    junk = tmp_path / "junk.bin"
    junk.write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"junk\.bin.*(-6000002|FromFiles failed)"):
        opened(junk, name)


@pytest.mark.parametrize("name", BPU_RUNTIMES)
def test_a_closed_model_says_so(opened, model, name):
    runtime = opened(model(), name)
    runtime.close()
    runtime.close()
    with pytest.raises(InferenceError, match="closed"):
        runtime.infer(standins.images(1)[0])


# libdnn


def test_structures_are_laid_out_as_in_the_documentation():
    sizes = {
        each.__name__: ctypes.sizeof(each)
        for each in (
            libdnn_abi.SysMem, libdnn_abi.TensorShape, libdnn_abi.TensorProperties,
            libdnn_abi.Tensor, libdnn_abi.InferCtrlParam,
        )
    }  # fmt: skip
    assert sizes == {
        "SysMem": 24, "TensorShape": 36, "TensorProperties": 176, "Tensor": 272,
        "InferCtrlParam": 32,
    }  # fmt: skip
    offsets = {
        name: getattr(libdnn_abi.TensorProperties, name).offset
        for name, _ in libdnn_abi.TensorProperties._fields_
    }
    assert offsets == {
        "validShape": 0, "alignedShape": 36, "tensorLayout": 72, "tensorType": 76, "shift": 80,
        "scale": 96, "quantiType": 128, "quantizeAxis": 132, "alignedByteSize": 136, "stride": 140,
    }  # fmt: skip


@pytest.mark.numpy2
@pytest.mark.parametrize(
    "settings",
    [
        {"pitch": 256},
        {"pitch": 240, "layout": 0},
        {"input": 2},
        {"input": 2, "pitch": 256},
        {"rank": 2},
        {"rank": 2, "pad": 25},
        {"pad": 4},
        {"pad": 4, "strides": 0},
        {"pad": 4, "strides": 2},
        {"pad": 4, "aligned": 0},
    ],
    ids=str,
)
def test_inputs_and_outputs_with_padding(opened, model, settings):
    runtime = opened(model(**settings))
    for nv12 in standins.images(3):
        assert_logits(runtime, nv12)


@pytest.mark.numpy2
@pytest.mark.parametrize("per_class", [0, 1])
@pytest.mark.parametrize("zero_point", [0, -5])
@pytest.mark.parametrize(
    ("output", "step"),
    [(standins.S8, 1 / 8), (standins.S16, 1 / 2048), (standins.S32, 1 / 1048576)],
)
def test_quantised_outputs_become_floats(opened, model, output, step, zero_point, per_class):
    path = model(output=output, per_class=per_class, zero_point=zero_point, pad=4)
    runtime = opened(path)
    largest = step * (3 if per_class else 1)
    for nv12 in standins.images(3):
        assert_logits(runtime, nv12, largest / 2 + 1e-5)  # rounded to the nearest step


def test_an_image_is_written_into_the_bpus_own_memory(bpu, opened, model):
    runtime = opened(model(input=2, pitch=256))
    with runtime.slot() as slot:
        assert slot.nv12.y.strides == (256, 1)
        assert slot.nv12.uv.strides == (256, 2, 1)
        nv12 = standins.images(1)[0]
        for target, source in zip(slot.nv12, Nv12Planes.of(nv12), strict=True):
            target[...] = source
        slot.commit()
        np.testing.assert_allclose(slot.infer(), standins.logits(nv12), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"output": standins.S8, "quanti": 0}, "without a scale"),
        ({"output": 4}, "output of type 4"),
        ({"bytes": 100}, "too few"),
        ({"output": standins.S8, "per_class": 1, "axis": 0}, "1000 scales"),
        ({"output": standins.S8, "per_class": 1, "axis": 9}, "1000 scales"),
        ({"output": standins.S8, "per_class": 1, "axis": -1}, "1000 scales"),
    ],
    ids=["unscaled", "type", "size", "axis", "no axis", "negative axis"],
)
def test_outputs_that_are_no_logits_are_refused(bpu, opened, model, settings, reason):
    before = bpu["models"]
    with pytest.raises(ModelLoadError, match=reason):
        opened(model(**settings))
    assert bpu["models"] == before


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_without_memory_a_model_does_not_load_and_nothing_leaks(bpu, opened, model, call):
    before = bpu["memories"], bpu["models"]
    bpu.set(alloc_error_at=call)
    with pytest.raises(ModelLoadError, match=r"hbSysAllocCachedMem.*-6000130.*out of memory"):
        opened(model(), slots=2)
    assert (bpu["memories"], bpu["models"]) == before


def test_an_error_of_every_kind_is_named(bpu, opened, model):
    runtime, image = opened(model()), standins.images(1)[0]
    for code, meaning in libdnn_abi.MEANINGS.items():
        if code != libdnn_abi.TIMEOUT:
            bpu.set(infer_error_at=1, infer_error=code)
            with pytest.raises(InferenceError, match=rf"hbDNNInfer failed with {code}: {meaning}"):
                runtime.infer(image)
    bpu.set(infer_error_at=1, infer_error=-7)
    with pytest.raises(InferenceError, match="-7: stand-in error"):
        runtime.infer(image)
    bpu.set(infer_error=-6000012)
    assert_logits(runtime, image)


def test_the_task_limit_is_an_error_and_passes(bpu, opened, model):
    runtime, image = opened(model()), standins.images(1)[0]
    bpu.set(task_limit=0)
    with pytest.raises(InferenceError, match=r"-6000009: too many open tasks"):
        runtime.infer(image)
    bpu.set(task_limit=32)
    assert_logits(runtime, image)


def test_a_hung_task_times_out_and_what_follows_is_right(bpu, opened, model):
    """The BPU writes the hung task's output after all, when it is released: into no other's."""
    images = standins.images(4)
    before = bpu["memories"]
    runtime = opened(model(), infer_timeout=0.2)
    idle = bpu["memories"]
    for n in range(3):
        bpu.set(hang_at=1)
        start = time.monotonic()
        with pytest.raises(InferenceTimeoutError, match=r"0\.2 s.*hbDNNWaitTaskDone"):
            runtime.infer(images[n])
        assert time.monotonic() - start >= 0.2
        for nv12 in images:
            assert_logits(runtime, nv12)
        assert bpu["memories"] == idle
    assert bpu["open_tasks"] == 0
    runtime.close()
    assert bpu["memories"] == before


def test_callers_side_by_side_survive_a_hang(bpu, opened, model):
    runtime, images = opened(model(), infer_timeout=0.3, slots=4), standins.images(4)
    bpu.set(duration_us=1000, hang_at=50)
    outcomes = []

    def caller(index):
        for _ in range(50):
            try:
                result = runtime.infer(images[index])
            except InferenceTimeoutError:
                outcomes.append("timeout")
            else:
                right = np.abs(result - standins.logits(images[index])).max() < 1e-4
                outcomes.append("right" if right else "wrong")

    run_side_by_side(4, caller)
    assert outcomes.count("wrong") == 0
    assert 1 <= outcomes.count("timeout") <= 4
    assert len(outcomes) == 200


def test_a_bpu_that_stays_silent_is_given_up(bpu, opened, model):
    runtime, image = opened(model(), infer_timeout=0.1), standins.images(1)[0]
    bpu.set(dead_at=1)
    outcomes = []
    for _ in range(4):
        with pytest.raises(InferenceError) as caught:
            runtime.infer(image)
        outcomes.append(caught.type)
        submitted = bpu["inferences"]
    assert outcomes == [InferenceTimeoutError] * 2 + [DeviceLostError] * 2
    with pytest.raises(DeviceLostError):
        runtime.infer(image)
    assert bpu["inferences"] == submitted
    start = time.monotonic()
    runtime.close()  # must not wait for what does not answer
    assert time.monotonic() - start < 10
    bpu.set(dead_at=0)
    assert_logits(opened(model()), image)


def test_a_bpu_that_hangs_and_takes_no_more_tasks_is_given_up(bpu, opened, model):
    runtime, image = opened(model(), infer_timeout=0.1), standins.images(1)[0]
    bpu.set(dead_at=1)
    with pytest.raises(InferenceTimeoutError):
        runtime.infer(image)
    bpu.set(task_limit=0)
    with pytest.raises(InferenceError, match=r"hbDNNInfer failed with -6000009"):
        runtime.infer(image)
    time.sleep(0.25)
    with pytest.raises(DeviceLostError, match=r"stopped answering \(hbDNNInfer failed"):
        runtime.infer(image)


def test_a_bpu_that_hangs_without_memory_for_new_tensors_is_given_up(bpu, opened, model):
    runtime, image = opened(model(), infer_timeout=0.1), standins.images(1)[0]
    bpu.set(hang_at=1, alloc_error_at=2)
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="stopped answering"):
            runtime.infer(image)


def test_what_a_hung_inference_may_still_use_is_freed_after_the_next_one(bpu, opened, model):
    before, image = (bpu["memories"], bpu["models"]), standins.images(1)[0]
    for _ in range(2):
        runtime = opened(model(), infer_timeout=0.1)
        bpu.set(hang_at=1)
        with pytest.raises(InferenceTimeoutError):
            runtime.infer(image)
        runtime.close()
    assert (bpu["memories"], bpu["models"]) > before
    runtime = opened(model())
    assert_logits(runtime, image)
    runtime.close()
    assert (bpu["memories"], bpu["models"]) == before


def test_an_inference_that_began_before_a_hang_is_no_proof_that_it_ended(bpu, opened, model):
    """It may be the hung one that the BPU takes later."""
    before, (one, other) = bpu["memories"], standins.images(2)
    runtime = opened(model(), slots=2, infer_timeout=2.0)
    hasty = opened(model(), infer_timeout=0.1)
    bpu.set(duration_us=500_000)
    thread = threading.Thread(target=runtime.infer, args=(one,))
    thread.start()
    time.sleep(0.1)  # the BPU works on it
    with pytest.raises(InferenceTimeoutError):
        hasty.infer(other)
    hasty.close()
    thread.join()
    time.sleep(0.6)  # until the other has ended: `bpu` looks for wild writes
    assert_logits(runtime, one)
    runtime.close()
    assert bpu["memories"] == before


def test_a_wait_that_fails_while_the_task_runs_leaves_its_memory_alone(bpu, opened, model):
    """`bpu` looks for memory that was reused or freed before the task ended."""
    before, images = (bpu["memories"], bpu["models"]), standins.images(4)
    failed = 0
    for _ in range(4):
        runtime = opened(model())
        bpu.set(duration_us=20_000, hbDNNWaitTaskDone=1000, slow_us=0, hang_us=0)
        for image in images:
            try:
                assert_logits(runtime, image)
            except InferenceError:
                failed += 1
        bpu.set(hbDNNWaitTaskDone=0)
        runtime.close()
    assert failed > 4
    runtime = opened(model())
    assert_logits(runtime, images[0])
    runtime.close()
    assert (bpu["memories"], bpu["models"]) == before


def test_single_timeouts_far_apart_are_no_reason_to_give_up(bpu, opened, model):
    runtime, image = opened(model(), infer_timeout=0.05), standins.images(1)[0]
    for _ in range(5):
        bpu.set(hang_at=1)
        with pytest.raises(InferenceTimeoutError):
            runtime.infer(image)
        assert_logits(runtime, image)


def test_other_threads_run_while_a_task_does(bpu, opened, model):
    assert turns_while_inferring(bpu, opened(model())) > 30


def test_a_library_that_is_not_libdnn(bpu, monkeypatch, tmp_path):
    library = tmp_path / "libother.so"
    subprocess.run(["cc", "-shared", "-o", library, "-x", "c", "/dev/null"], check=True)
    monkeypatch.setattr(libdnn_abi, "LIBRARIES", (str(library),))
    with pytest.raises(RuntimeUnavailableError, match=r"libother\.so has no function hbDNN"):
        libdnn.probe()
    monkeypatch.setattr(libdnn_abi, "LIBRARIES", (str(tmp_path / "none.so"),))
    with pytest.raises(RuntimeUnavailableError, match=r"none\.so.*RDK OS"):
        libdnn.probe()


def test_a_hundred_thousand_inferences_leak_nothing(bpu, opened, model):
    """No growth in memory, no task left open, no wrong logits, with four threads."""
    images = standins.images(8)
    runtime = opened(model(), slots=4)
    expected = [runtime.infer(nv12) for nv12 in images]
    for nv12, logits in zip(images, expected, strict=True):
        np.testing.assert_allclose(logits, standins.logits(nv12), atol=1e-5)
    wrong = []

    def caller(offset):
        for n in range(12_500):
            index = (n + offset) % len(images)
            if not np.array_equal(runtime.infer(images[index]), expected[index]):
                wrong.append(index)

    memories, before = bpu["memories"], bpu["inferences"]
    run_side_by_side(4, caller)
    settled = resident()
    run_side_by_side(4, caller)
    assert bpu["inferences"] - before == 100_000
    assert not wrong
    assert bpu["open_tasks"] == 0
    assert bpu["memories"] == memories
    assert resident() - settled < 4 << 20  # 50,000 leaks of 84 bytes


# hobot_dnn


@pytest.fixture
def extension(bpu, monkeypatch):
    if NUMPY2:
        pytest.skip("needs numpy < 2")
    monkeypatch.setattr(hobot_dnn, "_networks", {})


def test_hobot_dnn_loads_a_file_once(bpu, extension, opened, model):
    path = model()
    before = bpu["models"]
    for _ in range(3):
        opened(path, "hobot_dnn").close()
    assert bpu["models"] == before + 1
    os.utime(path, ns=(1, 1))  # another file of the same name
    opened(path, "hobot_dnn")
    assert bpu["models"] == before + 2


def test_hobot_dnn_runtimes_of_one_file_do_not_mix_their_results(extension, opened, model):
    runtimes = [opened(model(), "hobot_dnn") for _ in range(2)]
    images = standins.images(2)
    wrong = []

    def caller(n):
        for _ in range(200):
            result = runtimes[n].infer(images[n])
            if np.abs(result - standins.logits(images[n])).max() > 1e-4:
                wrong.append(n)

    run_side_by_side(2, caller)
    assert not wrong


def test_hobot_dnn_has_two_names(extension, opened, model, monkeypatch):
    import hobot_dnn as package
    from hobot_dnn import pyeasy_dnn

    monkeypatch.setitem(sys.modules, "hobot_dnn_rdkx5", package)
    monkeypatch.setitem(sys.modules, "hobot_dnn_rdkx5.pyeasy_dnn", pyeasy_dnn)
    monkeypatch.setitem(sys.modules, "hobot_dnn.pyeasy_dnn", None)
    assert "hobot_dnn_rdkx5" in hobot_dnn.probe()
    assert_logits(opened(model(), "hobot_dnn"), standins.images(1)[0])


@pytest.mark.parametrize("name", ["libdnn", "hbm"])
def test_files_with_several_models_are_refused(opened, model, name):
    """hobot_dnn sees the first one only."""
    with pytest.raises(ModelLoadError, match=r"2 models|one model"):
        opened(model(models=2), name)


def test_hobot_dnn_out_of_tasks_says_that_only_a_new_process_helps(bpu, extension, opened, model):
    runtime, image = opened(model(), "hobot_dnn"), standins.images(1)[0]
    kinds = []
    for _ in range(40):
        bpu.set(wait_error_at=1)
        with pytest.raises(InferenceError) as caught:
            runtime.infer(image)
        kinds.append(caught.type)
    assert kinds == [InferenceError] * 31 + [DeviceLostError] * 9
    assert "start the node again" in str(caught.value)


def test_hobot_dnn_failures_that_pass_are_no_reason_to_give_up(bpu, extension, opened, model):
    runtime, image = opened(model(), "hobot_dnn"), standins.images(1)[0]
    for _ in range(40):
        bpu.set(infer_error_at=1)
        with pytest.raises(InferenceError) as caught:
            runtime.infer(image)
        assert caught.type is InferenceError
        assert_logits(runtime, image)


@pytest.mark.parametrize(
    "settings", [{"input": 2}, {"output": standins.S32}, {"rank": 2}], ids=str
)
def test_hobot_dnn_leaves_what_it_cannot_tell_to_libdnn(extension, opened, model, settings):
    with pytest.raises(ModelLoadError, match="libdnn"):
        opened(model(**settings), "hobot_dnn")


@pytest.mark.numpy2
@pytest.mark.skipif(not NUMPY2, reason="what numpy 2 does to it")
def test_hobot_dnn_names_numpy_as_the_reason(bpu):
    with pytest.raises(RuntimeUnavailableError, match=r"numpy < 2.*pip install 'numpy<2'"):
        hobot_dnn.probe()


def test_hobot_dnn_stops_every_thread_while_a_task_runs(bpu, extension, opened, model):
    """The vice that makes libdnn the first choice; should it go, the documentation must follow."""
    assert turns_while_inferring(bpu, opened(model(), "hobot_dnn")) < 10


# hbm


@pytest.mark.parametrize("states", ["picture", "rows", "flat"])
@pytest.mark.parametrize("takes", ["rows", "flat"])
def test_hbm_finds_the_shape_that_is_taken(opened, model, monkeypatch, states, takes):
    monkeypatch.setenv("HBM_STANDIN_STATES", states)
    monkeypatch.setenv("HBM_STANDIN_TAKES", takes)
    assert_logits(opened(model(), "hbm"), standins.images(1)[0])


def test_hbm_takes_no_shape_at_all(opened, model, monkeypatch):
    monkeypatch.setenv("HBM_STANDIN_TAKES", "picture")
    with pytest.raises(ModelLoadError, match=r"none of the usual shapes.*wanted"):
        opened(model(), "hbm")


def test_hbm_does_not_take_integers_for_logits(opened, model):
    with pytest.raises(ModelLoadError, match=r"int32.*libdnn"):
        opened(model(output=standins.S32), "hbm")


def test_hbm_that_fails_to_import_is_not_here(bpu, monkeypatch):
    monkeypatch.setenv("HBM_STANDIN_STATES", "broken")
    with pytest.raises(RuntimeUnavailableError, match=r"libdnn\.so: cannot open"):
        RUNTIMES["hbm"].probe()


def run_side_by_side(count, work):
    """Call `work` with 0 to `count` - 1 in a thread each; raises what any of them raised."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def turns_while_inferring(bpu, runtime):
    """How often another Python thread gets its turn during a task of 0.3 s; at most 300 times."""
    bpu.set(duration_us=300_000)
    thread = threading.Thread(target=runtime.infer, args=(standins.images(1)[0],))
    turns = 0
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    return turns


def resident():
    """This process's resident memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
