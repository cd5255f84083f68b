"""The calibration check: each fault of calibration images, and no alarm for good ones."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from efv2_ros.evaluation.classes import Classes
from efv2_ros.quantize.calibration import Images, Sample
from efv2_ros.quantize.check import check_images, errors
from efv2_ros.runtimes.base import ImageInput
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.nv12 import Nv12Converter

SIDE = 64
IMAGE = ImageInput(SIDE, SIDE)
LIMITED = ImageInput(SIDE, SIDE, "limited")


def scene(seed, warm=25):
    """A BGR picture like a photo: smooth, contrasty, and somewhat more red than blue."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 6, 1)).repeat(3, 2).astype(np.float32)
    coarse += random.normal(0, 20, (6, 6, 3)) + np.array([-warm / 2, 0, warm / 2])
    picture = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


def sample(picture, number=0, group="", nv12_range="full", size=(640, 480)):
    converter = Nv12Converter(SIDE, SIDE, nv12_range=nv12_range)
    name = f"{group}/{number}.png" if group else f"{number}.png"
    return Sample(name, group, size, converter.convert(Frame.from_bgr(picture)))


def images(samples, left_out=()):
    return Images("folder", Path("photos"), "", len(samples), 0, tuple(samples), (), left_out)


def kinds(samples, image=IMAGE, classes=None):
    return [(each.level, each.kind) for each in check_images(images(samples), image, classes)]


def good(count=30, **options):
    return [sample(scene(number), number, **options) for number in range(count)]


def arrays(function, count=30):
    """Arrays made of good pictures by `function`, which gets RGB in 0..255, (3, h, w)."""
    found = []
    for number in range(count):
        rgb = sample(scene(number)).rgb(IMAGE)[0].clip(0, 255)
        array = np.ascontiguousarray(function(rgb), np.float32).reshape(1, 3, SIDE, SIDE)
        found.append(Sample(f"{number}.rgb", "", (SIDE, SIDE), array=array))
    return found


def test_good_images_raise_no_alarm():
    assert kinds(good()) == []
    assert kinds(good(nv12_range="limited"), LIMITED) == []
    assert kinds(arrays(lambda rgb: rgb)) == []


def test_none_and_few():
    assert kinds([]) == [("error", "none")]
    assert kinds(good(5)) == [("warning", "few")]
    assert kinds(good(1)) == [("warning", "few")]


def test_near_duplicates_are_counted():
    same = [sample(scene(0) // 2 + number % 2, number) for number in range(28)]
    (found,) = check_images(images([*same, *good(30)[28:]]), IMAGE)
    assert (found.level, found.kind) == ("warning", "duplicates")
    assert found.text == (
        "27 of 30 images look the same as another one, such as 1.png and 0.png: 3 images count."
    )


@pytest.mark.parametrize(("value", "kind"), [(0, "dark"), (128, "flat"), (255, "bright")])
def test_images_that_show_nothing(value, kind):
    picture = np.full((96, 96, 3), value, np.uint8)
    found = kinds([sample(picture, number) for number in range(25)])
    assert found[0] == ("error", kind)


def test_dark_images():
    dark = [sample((scene(n) // 16).astype(np.uint8), n) for n in range(25)]
    assert ("error", "dark") in kinds(dark)
    assert ("warning", "dark") in kinds([*dark[:10], *good()[10:]])
    bright = [sample(255 - (255 - scene(n)) // 16, n) for n in range(25)]
    assert ("error", "bright") in kinds(bright)


def test_limited_pixels_for_a_full_model_and_the_other_way_round():
    assert kinds(good(nv12_range="limited")) == [("warning", "range")]
    assert kinds(good(), LIMITED) == [("warning", "range")]


def test_swapped_channels_are_guessed():
    swapped = [sample(scene(number)[..., ::-1].copy(), number) for number in range(30)]
    assert kinds(swapped) == [("warning", "channels")]
    assert kinds(arrays(lambda rgb: rgb[::-1])) == [("warning", "channels")]


MEAN = np.array([123.675, 116.28, 103.53])[:, None, None]
SCALE = np.array([0.01712475, 0.017507, 0.01742919])[:, None, None]


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (lambda rgb: (rgb - MEAN) * SCALE, "normalised", "they are normalised already"),
        (lambda rgb: rgb / 127.5 - 1.001, "normalised", "they are normalised already"),
        (lambda rgb: rgb - MEAN, "normalised", "a mean is subtracted already"),
        (lambda rgb: rgb / 255, "range", "not in 0 to 255"),
        (lambda rgb: rgb * 257, "range", "beyond 0 to 255"),
        (lambda rgb: rgb * np.nan, "range", "not finite"),
    ],
)
def test_arrays_of_another_range(function, kind, text):
    found = check_images(images(arrays(function)), IMAGE)
    assert [each.kind for each in errors(found)] == [kind]
    assert text in found[0].text


def test_interleaved_arrays():
    def interleaved(rgb):
        colourful = rgb * np.array([0.3, 1, 0.6])[:, None, None]
        return colourful.transpose(1, 2, 0)

    assert ("error", "layout") in kinds(arrays(interleaved))


def test_limited_arrays():
    assert ("warning", "range") in kinds(arrays(lambda rgb: 16 + rgb * 219 / 255))


def test_small_images():
    assert kinds(good(size=(48, 48))) == [("warning", "small")]


def test_classes():
    classes = Classes([["cat"], ["dog"], ["bird"]])

    def of(*groups):
        return [
            sample(scene(number), number, groups[number % len(groups)]) for number in range(30)
        ]

    assert kinds(of("cat", "dog", "bird"), classes=classes) == []
    (found,) = check_images(images(of("cat", "dog")), IMAGE, classes)
    assert found.text == "1 of 3 classes have no image, such as class 2."
    assert kinds(of("cat"), classes=classes) == [("warning", "classes")]
    assert kinds(of("cat", "dog", "bird", "fish"), classes=classes) == [("warning", "classes")]
    assert kinds(of("monday", "tuesday"), classes=classes) == [], "days are no classes"
    many = Classes([[f"class {number}"] for number in range(1000)])
    assert kinds(of("3", "17"), classes=many) == [("note", "classes")]
    wnids = Classes([["n01440764"], ["n01443537"], ["n01484850"]])
    named = [
        replace(each, name=f"{('n01440764', 'n01443537')[number % 2]}_{number}.png")
        for number, each in enumerate(good())
    ]
    assert kinds(named, classes=wnids) == [("warning", "classes")]


def test_what_was_left_out_is_said():
    found = check_images(images(good(), ("a.png is damaged", "b.png too")), IMAGE)
    assert [each.text for each in found] == [
        "Left out because they cannot be read: a.png is damaged and 1 more."
    ]
