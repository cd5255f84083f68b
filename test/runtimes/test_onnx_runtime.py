import threading
import weakref

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper
from tiny_models import fails_on_bright, mean_colour, projection, save

from efv2_ros.pictures.photo import find_photos
from efv2_ros.resources import share_path
from efv2_ros.runtimes.base import (
    ImageInput,
    InferenceError,
    ModelLoadError,
    RunOptions,
    RuntimeUnavailableError,
    open_runtime,
)
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.nv12 import Nv12Converter

pytestmark = pytest.mark.numpy2


def flat_nv12(y, u, v, height=224, width=224):
    nv12 = np.empty((height * 3 // 2, width), np.uint8)
    nv12[:height] = y
    nv12[height:, 0::2] = u
    nv12[height:, 1::2] = v
    return nv12


# Full-range BT.601 (JFIF 1.02) and limited-range BT.601 (ITU-R BT.601-7) of the same colours.
COLOURS = [
    # RGB, full Y U V, limited Y U V
    ((255, 255, 255), (255, 128, 128), (235, 128, 128)),
    ((0, 0, 0), (0, 128, 128), (16, 128, 128)),
    ((255, 0, 0), (76, 85, 255), (81, 90, 240)),
    ((0, 255, 0), (150, 44, 21), (145, 54, 34)),
    ((0, 0, 255), (29, 255, 107), (41, 240, 110)),
]


@pytest.mark.parametrize("nv12_range", ["full", "limited"])
@pytest.mark.parametrize(("rgb", "full", "limited"), COLOURS)
def test_the_model_sees_the_colours_of_the_nv12_range(tmp_path, nv12_range, rgb, full, limited):
    path = mean_colour(tmp_path / "mean.onnx")
    runtime = open_runtime(path, ImageInput(nv12_range=nv12_range), "onnx")
    logits = runtime.infer(flat_nv12(*(full if nv12_range == "full" else limited)))
    # 8-bit Y, U and V leave RGB uncertain by half a step times the matrix: under 2.
    np.testing.assert_allclose(logits, rgb, atol=2.0)


def test_mean_and_scale_are_applied_in_rgb_order(tmp_path):
    image = ImageInput(mean=(10.0, 20.0, 30.0), scale=(0.1, 0.01, 1.0))
    runtime = open_runtime(mean_colour(tmp_path / "mean.onnx"), image, "onnx")
    logits = runtime.infer(flat_nv12(100, 128, 128))
    np.testing.assert_allclose(logits, [9.0, 0.8, 70.0], rtol=1e-3)  # a float32 mean of 50,176


@pytest.mark.parametrize(
    "fields",
    [
        {"mean": (float("nan"), 0.0, 0.0)},
        {"mean": (0.0, float("-inf"), 0.0)},
        {"mean": (0.0, 0.0)},
        {"scale": (1.0, 1.0, float("nan"))},
        {"scale": (1.0, 0.0, 1.0)},
        {"sides": None, "height": 225},
        {"sides": None, "width": 0},
    ],
)
def test_an_image_that_no_model_could_be_fed(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        ImageInput(**{name: value for name, value in fields.items() if value is not None})


def test_each_chroma_sample_colours_its_own_four_pixels(tmp_path):
    nodes = [helper.make_node("Reshape", ["data", "shape"], ["output"])]
    path = save(
        tmp_path / "identity.onnx",
        nodes,
        [1, 3, 4, 6],
        [1, 72],
        {"shape": np.array([1, 72], np.int64)},
    )
    nv12 = np.random.RandomState(0).randint(0, 256, (6, 6), np.uint8)
    rgb = open_runtime(path, ImageInput(4, 6), "onnx").infer(nv12).reshape(3, 4, 6)
    luma, pairs = nv12[:4].astype(float), nv12[4:].astype(float).reshape(2, 3, 2) - 128
    u, v = (np.kron(pairs[..., plane], np.ones((2, 2))) for plane in (0, 1))
    expected = [luma + 1.4017 * v, luma - 0.3437 * u - 0.7142 * v, luma + 1.7722 * u]
    np.testing.assert_allclose(rgb, expected, atol=1e-3)  # float32 against float64, below 600


@pytest.mark.parametrize(("height", "width"), [(96, 64), (320, 256)])
def test_other_input_sizes_and_a_symbolic_batch(tmp_path, height, width):
    path = mean_colour(tmp_path / "mean.onnx", height, width, batch="N")
    runtime = open_runtime(path, ImageInput(height, width), "onnx")
    assert runtime.info.classes == 3
    logits = runtime.infer(flat_nv12(50, 128, 128, height, width))
    np.testing.assert_allclose(logits, [50, 50, 50], rtol=1e-5)


def test_callers_side_by_side_get_their_own_results(tmp_path):
    runtime = open_runtime(
        projection(tmp_path / "p.onnx"), ImageInput(), "onnx", RunOptions(slots=4, threads=1)
    )
    random = np.random.RandomState(1)
    inputs = [random.randint(0, 256, (336, 224), np.uint8) for _ in range(8)]
    expected = [runtime.infer(nv12) for nv12 in inputs]
    failures = []

    def caller(offset):
        for n in range(100):
            index = (n * 3 + offset) % len(inputs)
            if not np.array_equal(runtime.infer(inputs[index]), expected[index]):
                failures.append(index)

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not failures


def test_logits_belong_to_the_caller(tmp_path):
    runtime = open_runtime(mean_colour(tmp_path / "mean.onnx"), ImageInput(), "onnx")
    first = runtime.infer(flat_nv12(10, 128, 128))
    runtime.infer(flat_nv12(200, 128, 128))
    np.testing.assert_allclose(first, [10, 10, 10], rtol=1e-5)


def test_a_committed_image_is_inferred_while_the_next_one_is_committed(tmp_path):
    options = RunOptions(slots=2)
    runtime = open_runtime(mean_colour(tmp_path / "mean.onnx"), ImageInput(), "onnx", options)
    with runtime.slot() as first, runtime.slot() as second:
        for slot, grey in ((first, 10), (second, 200)):
            slot.nv12.y.fill(grey)
            slot.nv12.uv.fill(128)
            slot.commit()
        first.nv12.y.fill(77)  # not committed
        np.testing.assert_allclose(second.infer(), [200] * 3, atol=2.0)
        np.testing.assert_allclose(first.infer(), [10] * 3, atol=2.0)
        first.commit()
        np.testing.assert_allclose(first.infer(), [77] * 3, atol=2.0)


@pytest.mark.parametrize(
    ("nv12", "reason"),
    [
        (np.zeros((336, 225), np.uint8), "shape"),
        (np.zeros((336, 224), np.int8), "int8"),
        (np.zeros((224, 336), np.uint8).T, "C-contiguous"),
        (b"bytes", "bytes"),
    ],
)
def test_what_is_not_an_nv12_buffer_is_refused(tmp_path, nv12, reason):
    runtime = open_runtime(mean_colour(tmp_path / "mean.onnx"), ImageInput(), "onnx")
    with pytest.raises(ValueError, match=reason):
        runtime.infer(nv12)


def test_unknown_runtime_names_the_known_ones(tmp_path):
    with pytest.raises(RuntimeUnavailableError, match=r"'gpu'.*auto, libdnn, hbm"):
        open_runtime(tmp_path / "any.onnx", ImageInput(), "gpu")


def test_files_that_are_no_such_model(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x06 this is no model")
    with pytest.raises(ModelLoadError, match=r"broken\.onnx"):
        open_runtime(broken, ImageInput(), "onnx")
    with pytest.raises(ModelLoadError, match=r"absent\.onnx"):
        open_runtime(tmp_path / "absent.onnx", ImageInput(), "onnx")
    with pytest.raises(ModelLoadError, match=r"takes \[1, 3, 96, 64\], not \[1, 3, 224, 224\]"):
        open_runtime(mean_colour(tmp_path / "small.onnx", 96, 64), ImageInput(), "onnx")
    flat = save(
        tmp_path / "flat.onnx", [helper.make_node("Relu", ["data"], ["output"])], [1, 9], [1, 9]
    )
    with pytest.raises(ModelLoadError, match="one float input"):
        open_runtime(flat, ImageInput(), "onnx")
    two = save(
        tmp_path / "two.onnx",
        [
            helper.make_node("Relu", ["data"], ["output"]),
            helper.make_node("Neg", ["data"], ["more"]),
        ],
        [1, 3, 224, 224],
        [1, 3, 224, 224],
        extra_outputs=[helper.make_tensor_value_info("more", TensorProto.FLOAT, None)],
    )
    with pytest.raises(ModelLoadError, match="one float output"):
        open_runtime(two, ImageInput(), "onnx")
    nothing = save(
        tmp_path / "nothing.onnx",
        [helper.make_node("ReduceMean", ["data"], ["mean"], axes=[1, 2, 3], keepdims=0),
         helper.make_node("Reshape", ["mean", "shape"], ["row"]),
         helper.make_node("Slice", ["row", "start", "start", "axis"], ["output"])],
        [1, 3, 224, 224],
        [1, 0],
        {"shape": np.array([1, 1], np.int64), "start": np.zeros(1, np.int64),
         "axis": np.ones(1, np.int64)},
    )  # fmt: skip
    with pytest.raises(ModelLoadError, match="without a class"):
        open_runtime(nothing, ImageInput(), "onnx")


def test_a_failing_inference_is_an_inference_error_and_the_next_one_works(tmp_path):
    path = fails_on_bright(tmp_path / "gather.onnx")
    runtime = open_runtime(path, ImageInput(), "onnx")
    assert runtime.infer(flat_nv12(42, 128, 128)) == [42]
    with pytest.raises(InferenceError, match="ONNX Runtime"):
        runtime.infer(flat_nv12(200, 128, 128))
    assert runtime.infer(flat_nv12(7, 128, 128)) == [7]


def test_a_closed_model_says_so(tmp_path):
    runtime = open_runtime(mean_colour(tmp_path / "mean.onnx"), ImageInput(), "onnx")
    runtime.close()
    runtime.close()
    with pytest.raises(InferenceError, match="closed"):
        runtime.infer(flat_nv12(10, 128, 128))


def test_a_closed_model_lets_go_of_its_memory_at_once(tmp_path):
    runtime = open_runtime(mean_colour(tmp_path / "mean.onnx"), ImageInput(), "onnx")
    with runtime.slot() as slot:
        memory = weakref.ref(slot)
    del slot
    assert memory() is not None
    runtime.close()
    assert memory() is None


def test_the_wrong_range_shows_the_model_paler_colours(tmp_path):
    """D-Robotics' models want full range; cv2.COLOR_BGR2YUV_I420 makes limited range."""
    height, width = 224, 224
    size = 3 * height * width
    path = save(
        tmp_path / "identity.onnx",
        [helper.make_node("Reshape", ["data", "shape"], ["output"])],
        [1, 3, height, width],
        [1, size],
        {"shape": np.array([1, size], np.int64)},
    )
    runtime = open_runtime(path, ImageInput(height, width), "onnx")
    errors = {"full": [], "limited": []}
    for photo in find_photos([share_path("photos")]):
        bgr = cv2.resize(cv2.imread(str(photo)), (width, height), interpolation=cv2.INTER_AREA)
        frame = Frame.from_bgr(bgr)
        for nv12_range, found in errors.items():
            nv12 = Nv12Converter(height, width, fit="stretch", nv12_range=nv12_range)
            seen = runtime.infer(nv12.convert(frame)).reshape(3, height, width)
            rgb = bgr[..., ::-1].transpose(2, 0, 1)
            found.append(np.abs(seen - rgb).mean())
    assert np.mean(errors["full"]) < 2.5  # the chroma's subsampling alone, of 255
    assert np.mean(errors["limited"]) > 4 * np.mean(errors["full"])
