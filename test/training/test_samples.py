"""Samples: the same whatever was before, as the node sees them, each class as often as asked."""

import random
from collections import Counter

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from efv2_ros.pictures.photo import read_photo
from efv2_ros.training.options import TrainingOptions
from efv2_ros.training.photos import LabelledPhoto
from efv2_ros.training.samples import EpochSampler, Place, TrainingSamples, ValidationSamples
from efv2_ros.vision.frame import FrameError
from efv2_ros.vision.nv12 import Nv12Converter

pytestmark = pytest.mark.training


@pytest.fixture
def photos(tmp_path):
    """One photo of class 0, nine of class 1."""
    made = []
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.resize(pixels, (240, 180)))
        made.append(LabelledPhoto(tmp_path / f"{number}.png", int(number > 0)))
    return made


def test_a_sample_depends_on_its_place_alone(photos):
    samples = TrainingSamples(photos, TrainingOptions(small_epochs=1, small_side=64))
    first = samples[Place(0, 3)].nv12
    random.seed(99)
    samples[Place(0, 4)]
    assert first.equal(samples[Place(0, 3)].nv12)
    assert first.shape == (96, 64)
    assert samples[Place(1, 3)].nv12.shape == (336, 224)
    assert not samples[Place(1, 3)].nv12.equal(samples[Place(2, 3)].nv12)


def test_validation_sees_what_the_node_sees(photos):
    expected = Nv12Converter(224, 224, fit="crop", crop_pct=0.95).convert(
        read_photo(photos[2].path)
    )
    assert np.array_equal(ValidationSamples(photos, 224)[2].nv12.numpy(), expected)


def test_an_unreadable_photo_is_replaced_by_its_class_or_marked(photos):
    photos[1].path.write_bytes(b"no photo")
    sample = TrainingSamples(photos, TrainingOptions())[Place(0, 1)]
    assert (sample.class_id, sample.unreadable) == (1, 1)
    assert ValidationSamples(photos, 224)[1].unreadable == 1
    photos[0].path.unlink()
    with pytest.raises(FrameError, match=r"0\.png"):
        TrainingSamples(photos, TrainingOptions())[Place(0, 0)]


def test_an_epoch_shows_each_photo_once_in_its_own_order(photos):
    sampler = EpochSampler(photos, seed=0, balance=False)
    first = [place.photo for place in sampler]
    sampler.epoch = 1
    second = list(sampler)
    assert sorted(first) == list(range(10))
    assert {place.epoch for place in second} == {1}
    assert [place.photo for place in second] != first


def test_balance_shows_each_class_equally_often(photos):
    sampler = EpochSampler(photos, seed=0, balance=True)
    shown = Counter()
    for epoch in range(100):
        sampler.epoch = epoch
        shown.update(photos[place.photo].class_id for place in sampler)
    assert 400 < shown[0] < 600
