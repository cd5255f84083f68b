"""The part of a picture that the network sees, against what changes the network's input."""

import numpy as np
import pytest

from efv2_ros.vision.frame import Frame, FrameError
from efv2_ros.vision.geometry import Roi
from efv2_ros.vision.nv12 import Nv12Converter
from efv2_ros.vision.seen import Seen

SIZE = (150, 110)
CROP_PCT = 0.95


def seen_by(fit, roi=None, size=SIZE):
    return Seen.of(size, fit, (64, 64), CROP_PCT, roi)


def changes(fit, roi, columns, rows):
    """Whether other pixels in these columns and rows change the network's input."""
    converter = Nv12Converter(64, 64, fit=fit, crop_pct=CROP_PCT, roi=roi, antialias=False)
    before = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    after = before.copy()
    after[rows, columns] = 0
    first, second = (converter.convert(Frame.from_bgr(each)) for each in (before, after))
    return not np.array_equal(first, second)


@pytest.mark.parametrize("roi", [None, Roi(10, 20, 90, 60), Roi(31, 7, 33, 90)])
@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_only_pixels_within_it_matter(fit, roi):
    """One pixel of tolerance: an edge lies between two samples, which bilinear sampling mixes."""
    seen = seen_by(fit, roi)
    everything = slice(None)
    low, high = round(seen.left) - 1, round(seen.right) + 1
    assert not changes(fit, roi, slice(0, max(0, low)), everything)
    assert not changes(fit, roi, slice(high, None), everything)
    assert changes(fit, roi, slice(low + 1, low + 4), everything)
    assert changes(fit, roi, slice(high - 4, high - 1), everything)
    low, high = round(seen.top) - 1, round(seen.bottom) + 1
    assert not changes(fit, roi, everything, slice(0, max(0, low)))
    assert not changes(fit, roi, everything, slice(high, None))
    assert changes(fit, roi, everything, slice(low + 1, low + 4))
    assert changes(fit, roi, everything, slice(high - 4, high - 1))


def test_the_crop_is_timms():
    """224 of 235 pixels of the short side, from the middle."""
    seen = Seen.of((470, 235), "crop", (224, 224), CROP_PCT, None)
    assert seen == pytest.approx((470, 235, 123, 6, 347, 230))


def test_corners_go_round():
    seen = seen_by("stretch", Roi(10, 20, 30, 40))
    wanted = [(10, 20), (40, 20), (40, 60), (10, 60)]
    assert np.allclose(seen.corners, wanted)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(150, 110), (111, 333), (64, 64), (1, 1)])
def test_a_whole_picture_has_no_corners(fit, size):
    assert seen_by(fit, size=size).corners == ()
    assert seen_by(fit, Roi(0, 0, *size), size).corners == ()


def test_a_crop_has_corners():
    assert len(seen_by("crop").corners) == 4


def test_a_region_outside_the_picture():
    with pytest.raises(FrameError, match="reaches outside"):
        seen_by("crop", Roi(100, 0, 51, 10))
