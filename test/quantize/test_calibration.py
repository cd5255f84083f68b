"""Calibration images: which are chosen, and that their pixels are those the BPU sees."""

from contextlib import closing

import bag_maker
import cv2
import numpy as np
import pytest
import tiny_models

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.pictures.photo import read_photo
from efv2_ros.quantize.calibration import (
    digest,
    load_images,
    plan,
    rgb_from_nv12,
    without,
    write_calibration,
)
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.sources import BagImages, FloatFolder, PhotoFolder, open_source
from efv2_ros.toolchain.environment import Stopped


@pytest.fixture
def model(tmp_path):
    """A model of 64x64 pixels whose logits are the mean of each colour, as RGB in 0..255."""
    path = tiny_models.mean_colour(tmp_path / "mean.onnx", 64, 64)
    request = ModelRequest(
        model_path=str(path), runtime="onnx", mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0)
    )
    with closing(load_model(request)) as model:
        yield model


@pytest.fixture
def folder(tmp_path):
    """Photos of three classes: 6, 3 and 1 of them."""
    for name, count in (("a", 6), ("b", 3), ("c/deep", 1)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            picture = bag_maker.picture(ord(name[0]) * 100 + number, 80, 90)
            cv2.imwrite(str(tmp_path / "photos" / name / f"{number}.png"), picture)
    return tmp_path / "photos"


def load(source, model, calibration=100, held_out=100, seed=0, view=None, **options):
    split = plan(source, calibration, held_out, seed)
    return load_images(source, split, model, view or ViewOptions(), seed, **options)


def test_the_folder_is_divided_and_each_class_gets_its_share(folder, model):
    images = load(open_source(folder, 64, 64), model)
    assert (images.kind, images.total, images.seed) == ("folder", 10, 0)
    assert len(images.calibration) == 5
    assert len(images.held_out) == 5
    names = {each.name for each in (*images.calibration, *images.held_out)}
    assert len(names) == 10
    groups = [each.group for each in images.calibration]
    assert {name: groups.count(name) for name in "abc"} == {"a": 2, "b": 2, "c": 1}
    assert {each.size for each in images.calibration} == {(90, 80)}


def test_the_seed_decides(folder):
    source = PhotoFolder(folder)
    assert plan(source, 4, 4, 0) == plan(source, 4, 4, 0)
    assert len({plan(source, 4, 4, seed) for seed in range(5)}) > 1


def test_fewer_to_calibrate_with_leave_more_to_hold_out(folder):
    split = plan(PhotoFolder(folder), 2, 100, 0)
    assert (len(split.calibration), len(split.held_out)) == (2, 8)
    assert len(plan(PhotoFolder(folder), 100, 0, 0).calibration) == 10


def test_pixels_are_those_the_onnx_runtime_computes(folder, model):
    """The logits are the mean of the RGB that its own preprocessing makes of the same photo."""
    view = ViewOptions(fit="letterbox", top_k=3)
    images = load(PhotoFolder(folder), model, view=view)
    for sample in images.calibration:
        classifier = Classifier(model, view)
        prepared = classifier.prepare(read_photo(folder / sample.name))
        logits = classifier.work(prepared).logits
        rgb = sample.rgb(model.image)
        assert rgb.shape == (1, 3, 64, 64)
        assert rgb.dtype == np.float32
        np.testing.assert_allclose(rgb[0].mean((1, 2)), logits, rtol=1e-5)


@pytest.mark.parametrize("range_", ["full", "limited"])
def test_rgb_follows_bt601(model, range_):
    from dataclasses import replace

    image = replace(model.image, nv12_range=range_)
    random = np.random.default_rng(0)
    nv12 = random.integers(0, 256, image.nv12_shape, np.uint8)
    rgb = rgb_from_nv12(nv12, image)
    y, x = 13, 30
    luma = float(nv12[y, x])
    u, v = (float(nv12[64 + y // 2, x // 2 * 2 + each]) - 128 for each in (0, 1))
    if range_ == "limited":
        luma, u, v = (luma - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    wanted = [luma + 1.4017 * v, luma - 0.3437 * u - 0.7142 * v, luma + 1.7722 * u]
    np.testing.assert_allclose(rgb[0, :, y, x], wanted, atol=1e-3)


def test_files_for_the_toolchain(folder, model, tmp_path):
    images = load(PhotoFolder(folder), model)
    target = tmp_path / "written"
    target.mkdir()
    write_calibration(images.calibration, model.image, target)
    files = sorted(target.iterdir())
    assert [each.name for each in files] == [f"{number:05}.rgb" for number in range(5)]
    array = np.fromfile(files[3], "<f4").reshape(1, 3, 64, 64)
    np.testing.assert_array_equal(array, images.calibration[3].rgb(model.image))
    with pytest.raises(QuantizeError, match="cannot write the calibration image"):
        write_calibration(images.calibration, model.image, tmp_path / "nowhere")


def test_a_digest_tells_pixels_and_order_apart(folder, model):
    images = load(PhotoFolder(folder), model)
    assert digest(images.calibration) == digest(load(PhotoFolder(folder), model).calibration)
    assert digest(images.calibration) != digest(images.calibration[::-1])
    assert digest(images.calibration) != digest(images.held_out)


def test_equal_pixels_are_not_held_out(folder, model):
    images = load(PhotoFolder(folder), model)
    both = (*images.held_out, images.calibration[0])
    assert without(both, images.calibration) == images.held_out


def test_a_photo_that_cannot_be_read_is_left_out(folder, model):
    for path in sorted(folder.glob("a/*")):
        path.write_bytes(b"no photo")
    images = load(PhotoFolder(folder), model, held_out=0)
    assert len(images.calibration) == 4
    assert len(images.left_out) == 6
    assert "a/" in images.left_out[0]


@pytest.mark.parametrize("kind", [bag_maker.image, bag_maker.compressed])
def test_a_bags_images_are_spread_over_its_time(tmp_path, model, kind):
    path = bag_maker.make(tmp_path / "bag", 40, kind=kind)
    source = open_source(path, 64, 64)
    assert isinstance(source, BagImages)
    split = plan(source, 8, 8, 0)
    assert split == plan(source, 8, 8, 1)
    assert not set(split.calibration) & set(split.held_out)
    for places in split:
        steps = np.diff(sorted(places))
        assert steps.min() >= 3
        assert steps.max() <= 8
    images = load(source, model, 8, 8)
    assert (images.kind, images.topic, images.total) == ("bag", "/image", 40)
    assert (len(images.calibration), len(images.held_out)) == (8, 8)
    assert images.calibration[0].size == (32, 24)
    assert images.calibration[0].name.startswith("image ")


def test_arrays_made_before(tmp_path, model):
    folder = tmp_path / "arrays"
    folder.mkdir()
    random = np.random.default_rng(0)
    arrays = random.uniform(0, 255, (3, 3, 64, 64)).astype(np.float32)
    np.save(folder / "0.npy", arrays[0])
    np.save(folder / "1.npy", arrays[1][None])
    arrays[2].tofile(folder / "2.rgb")
    source = open_source(folder, 64, 64)
    assert isinstance(source, FloatFolder)
    images = load(source, model)
    assert (len(images.calibration), images.held_out) == (3, ())
    found = {each.name: each.rgb(model.image)[0] for each in images.calibration}
    for number, name in enumerate(("0.npy", "1.npy", "2.rgb")):
        np.testing.assert_array_equal(found[name], arrays[number])


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((3, 32, 32), np.float32), "holds float32 .* not float32 of shape"),
        (np.zeros((3, 64, 64), np.uint8), "holds uint8"),
        (np.zeros((64, 64, 3), np.float32), "has the shape"),
    ],
)
def test_arrays_of_another_shape(tmp_path, model, array, problem):
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "0.npy", array)
    with pytest.raises(QuantizeError, match=problem):
        load(open_source(folder, 64, 64), model)


def test_sources_that_are_none(tmp_path, folder):
    with pytest.raises(QuantizeError, match="does not exist: give a folder of images or a bag"):
        open_source(tmp_path / "none", 64, 64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(QuantizeError, match="there are no images in"):
        open_source(tmp_path / "empty", 64, 64)
    with pytest.raises(QuantizeError, match="--topic is for a bag"):
        open_source(folder, 64, 64, "/image")


def test_stopping(folder, model):
    with pytest.raises(Stopped):
        load(PhotoFolder(folder), model, should_stop=lambda: True)
