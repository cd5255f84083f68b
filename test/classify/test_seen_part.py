"""The part of a frame that a classifier's network sees."""

import struct

import cv2
import numpy as np
import pytest
from tiny_models import projection

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.classify.seen import seen
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.nv12 import Roi

WIDE = np.zeros((100, 200, 3), np.uint8)


@pytest.fixture
def model(tmp_path):
    path = projection(tmp_path / "m.onnx", height=96, width=96)
    with load_model(ModelRequest(model_path=str(path))) as model:
        yield model


def seen_with(model, frame, **options):
    return seen(frame, Classifier(model, ViewOptions(**options)))


def test_the_crop_of_the_model(model):
    """96 of floor(96 / 0.95) pixels of the short side."""
    assert model.file.spec.crop_pct == 0.95
    part = seen_with(model, Frame.from_bgr(WIDE))
    assert part[:2] == (200, 100)
    assert (part.right - part.left, part.bottom - part.top) == pytest.approx((9600 / 101,) * 2)
    assert (part.left + part.right, part.top + part.bottom) == pytest.approx((200, 100), abs=1.5)


def test_the_options_of_the_view(model):
    frame = Frame.from_bgr(WIDE)
    assert seen_with(model, frame, fit="letterbox").corners == ()
    part = seen_with(model, frame, fit="stretch", roi=Roi(20, 30, 40, 50))
    assert part == pytest.approx((200, 100, 20, 30, 60, 80))
    with pytest.raises(FrameError, match="reaches outside"):
        seen_with(model, frame, roi=Roi(190, 0, 20, 10))


def test_a_photo_that_exif_turns(model):
    jpeg = cv2.imencode(".jpg", WIDE)[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(tiff)) + b"Exif\0\0" + tiff
    frame = Frame(Header(), "jpeg", np.frombuffer(jpeg[:2] + exif + jpeg[2:], np.uint8))
    part = seen_with(model, frame, fit="stretch", roi=Roi(0, 150, 100, 50))
    assert part == pytest.approx((100, 200, 0, 150, 100, 200))
    with pytest.raises(FrameError, match="max_pixels"):
        seen_with(model, frame, max_pixels=100)
