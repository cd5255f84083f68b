"""Pictures in cameras' encodings, against float64; photos and videos as streams of frames."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from pictures import picture, write_video
from reference import mean_2x2, rgb_to_yuv, to_limited

from efv2_ros.errors import Efv2Error
from efv2_ros.pictures.encode import encode, resized, to_nv12, to_yuyv
from efv2_ros.pictures.pictures import PHOTO_RATE, Pictures, PicturesError
from efv2_ros.vision.frame import FrameError

# Chroma is made from the rounded Y (0.36 at most, 0.5 / 1.402), rounded, averaged, rounded again.
CHROMA = 0.36 + 0.5 + 0.5


@pytest.mark.parametrize(("width", "height"), [(36, 22), (37, 23), (2, 2)])
def test_nv12_is_full_range(width, height):
    image = picture(1, width, height)
    rows, columns = height // 2 * 2, width // 2 * 2
    y, u, v = rgb_to_yuv(image[:rows, :columns, ::-1])
    nv12 = to_nv12(image).astype(float)
    chroma = nv12[rows:].reshape(rows // 2, columns // 2, 2)
    assert np.abs(nv12[:rows] - y).max() <= 0.51
    assert np.abs(chroma[..., 0] - mean_2x2(u)).max() <= CHROMA
    assert np.abs(chroma[..., 1] - mean_2x2(v)).max() <= CHROMA


@pytest.mark.parametrize(("width", "height"), [(36, 22), (37, 23), (2, 1)])
def test_yuyv_is_limited_range(width, height):
    image = picture(2, width, height)
    columns = width // 2 * 2
    y, u, v = to_limited(*rgb_to_yuv(image[:, :columns, ::-1]))
    yuyv = to_yuyv(image).astype(float)
    assert np.abs(yuyv[..., 0] - y).max() <= 1
    assert np.abs(yuyv[:, 0::2, 1] - (u[:, 0::2] + u[:, 1::2]) / 2).max() <= 0.5 + CHROMA
    assert np.abs(yuyv[:, 1::2, 1] - (v[:, 0::2] + v[:, 1::2]) / 2).max() <= 0.5 + CHROMA


@pytest.mark.parametrize(
    ("asked", "size"), [((18, 0), (11, 18)), ((0, 44), (44, 72)), ((7, 9), (9, 7))]
)
def test_resize_keeps_the_aspect_ratio_unless_told_otherwise(asked, size):
    assert resized(picture(3), *asked).shape == (*size, 3)


@pytest.mark.parametrize(("encoding", "width"), [("yuv422_yuy2", 1), ("nv12", 1), ("jpeg", 65501)])
def test_a_size_that_an_encoding_cannot_have_is_an_error(tmp_path, encoding, width):
    cv2.imwrite(str(tmp_path / "thin.png"), picture(4, width, 2))
    (frame,) = Pictures([tmp_path], pytest.fail).once()
    with pytest.raises(FrameError, match=f"{width}x2") as caught:
        encode(frame, encoding)
    assert caught.value.fault == "size"


# Streams


@pytest.fixture
def folder(tmp_path):
    """Three pictures without loss and a file that only pretends to be one."""
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    (tmp_path / "1b.jpg").write_bytes(b"no picture")
    return tmp_path


def take(frames, count):
    return [bytes(frame.data) for frame, _ in zip(frames, range(count), strict=False)]


def test_photos_go_round_and_what_is_none_is_said_once(folder):
    said = []
    pictures = Pictures([folder, folder / "0.png"], said.append)
    assert len(pictures) == 5
    expected = [picture(number).tobytes() for number in (0, 1, 2, 0)]
    assert take(pictures.endless(), 9) == [*expected, *expected, expected[0]]
    assert len(pictures) == 4
    (sentence,) = said
    assert "1b.jpg is not an image" in sentence
    assert pictures.rate == PHOTO_RATE


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_only_files_of_the_encoding_are_kept(folder, encoding):
    (folder / "1b.jpg").write_bytes(cv2.imencode(".jpg", picture(9))[1].tobytes())
    frames = list(Pictures([folder], pytest.fail, [encoding]).once())
    names = [frame.header.frame_id for frame in frames]
    assert names == ["0.png", "1.png", "1b.jpg", "2.png"]
    for frame in frames:
        name = frame.header.frame_id
        kept = name.endswith(".jpg") == (encoding == "jpeg")
        assert frame.encoding == (encoding if kept else "bgr8")
        assert (bytes(frame.data) == (folder / name).read_bytes()) == kept


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction("29.97")])
def test_a_videos_rate_is_exact(tmp_path, rate):
    path = write_video(tmp_path / "video.avi", ratio=rate.as_integer_ratio())
    pictures = Pictures([path], pytest.fail)
    assert pictures.rate == rate
    assert len(pictures) == 3
    shades = [frame.data.mean() for frame in pictures.once()]
    assert shades == pytest.approx([40, 120, 200], abs=3)


def test_what_is_no_picture_is_an_error(folder):
    video = write_video(folder / "video.avi")
    (folder / "notes.txt").write_text("no picture")
    (folder / "empty").mkdir()
    for paths, words in (
        ([folder / "gone.avi"], "no file .*gone.avi"),
        ([folder / "gone.png"], "no file .*gone.png"),
        ([folder / "notes.txt"], "notes.txt is neither a photo nor a video"),
        ([folder / "0.png", video], "video.avi is a video"),
        ([folder / "empty"], "no photos in"),
    ):
        with pytest.raises((Efv2Error, FrameError), match=words):
            Pictures(paths, pytest.fail)
    pictures = Pictures([folder / "1b.jpg"], lambda _: None)
    for _ in range(2):
        with pytest.raises(PicturesError, match=r"no image can be read from .*1b\.jpg"):
            list(pictures.endless())
