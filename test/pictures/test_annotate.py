"""Pictures for people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import reference

from efv2_ros.pictures.annotate import annotate, to_bgr
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.pixels import PIXEL_FORMATS

LINES = ["72.1% great white shark, white shark, man-eater", " 3.0% tench", " 0.1% chaise longue"]


def raw_frame(encoding, array, width, height, step):
    data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    return Frame(Header(), encoding, data, height, width, step)


def test_the_same_picture_from_every_encoding():
    width, height = 120, 80
    rgb = reference.picture(width, height)
    bgr = rgb[..., ::-1]
    y, u, v = (np.rint(each) for each in reference.to_limited(*reference.rgb_to_yuv(rgb)))
    grey = np.full((height, width), 255)
    nv12 = [y, np.stack([u[::2, ::2], v[::2, ::2]], -1).reshape(height // 2, width)]
    sources = {
        "bgr8": bgr,
        "rgb8": rgb,
        "bgra8": np.dstack([bgr, grey]),
        "rgba8": np.dstack([rgb, grey]),
        "nv12": np.concatenate(nv12),
        "nv21": np.concatenate([y, nv12[1].reshape(-1, 2)[:, ::-1].reshape(height // 2, width)]),
        "yuv422": np.stack([u[:, ::2], y[:, ::2], v[:, ::2], y[:, 1::2]], -1),
        "yuv422_yuy2": np.stack([y[:, ::2], u[:, ::2], y[:, 1::2], v[:, ::2]], -1),
    }
    for pattern in ("rggb", "bggr", "gbrg", "grbg"):
        sources[f"bayer_{pattern}8"] = reference.bayer_mosaic(rgb, pattern)
    for encoding, array in sources.items():
        step = width * PIXEL_FORMATS[encoding].channels
        frame = raw_frame(encoding, array.astype(np.uint8), width, height, step)
        image = to_bgr(frame)
        assert image.shape == (height, width, 3), encoding
        assert image.flags.c_contiguous and image.flags.writeable, encoding
        # Subsampled colours lag behind by a pixel; swapped ones would be off by far more.
        assert np.abs(image.astype(float) - bgr).mean() < 4, encoding
    for encoding in ("jpeg", "png"):
        data = cv2.imencode(f".{encoding}", bgr)[1].reshape(-1)
        assert np.abs(to_bgr(Frame(Header(), encoding, data)).astype(float) - bgr).mean() < 4


def test_mono():
    grey = reference.picture(50, 40)[..., 0].astype(np.uint16)
    for encoding, array, big_endian in (
        ("mono8", grey.astype(np.uint8), False),
        ("mono16", (grey * 256 + 77).astype("<u2"), False),
        ("mono16", (grey * 256 + 77).astype(">u2"), True),
    ):
        data = np.frombuffer(array.tobytes(), np.uint8)
        frame = Frame(Header(), encoding, data, 40, 50, 0, big_endian)
        assert np.array_equal(to_bgr(frame), np.dstack([grey] * 3))


def test_the_picture_is_a_copy():
    frame = raw_frame("bgr8", reference.picture(20, 10), 20, 10, 60)
    to_bgr(frame)[:] = 0
    assert frame.data.any()


def test_padded_rows_and_bad_frames():
    rgb = reference.picture(20, 10)
    padded = np.concatenate([rgb.reshape(10, 60), np.zeros((10, 7), np.uint8)], axis=1)
    assert np.array_equal(to_bgr(raw_frame("rgb8", padded, 20, 10, 67)), rgb[..., ::-1])
    with pytest.raises(FrameError):
        to_bgr(raw_frame("rgb8", padded, 20, 100, 67))
    with pytest.raises(FrameError):
        to_bgr(Frame(Header(), "jpeg", np.zeros(10, np.uint8)))


@pytest.mark.numpy2
@pytest.mark.parametrize("background", [0, 128, 255, "noise"])
@pytest.mark.parametrize("size", [(640, 480), (320, 240), (1920, 1080), (480, 1280)], ids=str)
def test_white_text_on_dark(size, background):
    """Bright letters on a surface that is dark enough for a contrast above 4.5:1."""
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[:] = (
        np.random.default_rng(0).integers(0, 256, image.shape)
        if background == "noise"
        else background
    )
    before = image.copy()
    annotate(image, LINES)
    changed = np.argwhere((image != before).any(axis=2))
    bottom, right = changed.max(axis=0) + 1
    box = image[:bottom, :right]
    letters = (box > 200).all(axis=2)
    assert letters.mean() > 0.02
    assert (box < 119).all(axis=2).mean() > 0.6
    assert right <= size[0] and bottom < size[1] / 2
    assert np.array_equal(image[bottom:], before[bottom:])


def text_size(lines):
    image = np.zeros((480, 640, 3), np.uint8)
    annotate(image, lines)
    lit = np.argwhere(image.any(axis=2))
    return lit.max(axis=0) - lit.min(axis=0) + 1


def test_text_fits():
    """A long line shrinks, many lines shrink, and both stay inside."""
    one = text_size(["tench"])
    assert text_size(["tench" * 30])[0] < one[0]
    assert text_size(["tench" * 30])[1] < 640
    assert 240 < text_size(["tench"] * 60)[0] < 480


def test_every_line_is_drawn():
    assert text_size(LINES)[0] > 2 * text_size(LINES[:1])[0]


@pytest.mark.parametrize("size", [(1, 1), (8, 5), (64, 48), (3, 2000), (2000, 3)], ids=str)
def test_any_size(size):
    annotate(np.zeros((size[1], size[0], 3), np.uint8), [*LINES, "", "trois\nœufs"])


def test_no_lines():
    image = np.full((20, 20, 3), 9, np.uint8)
    annotate(image, [])
    assert np.all(image == 9)


def test_other_alphabets_become_question_marks():
    wanted, image = np.zeros((2, 100, 300, 3), np.uint8)
    annotate(wanted, ["? ?"])
    annotate(image, ["鱼 é"])
    assert np.array_equal(image, wanted)
