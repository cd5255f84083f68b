"""Pictures for the page: no wider than asked for, and not encoded where the camera did."""

import cv2
import numpy as np
import pytest

from efv2_ros.pictures.encode import encode
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.web.jpegs import JpegEncoder


def picture(width, height):
    """Four quarters of different colours."""
    bgr = np.zeros((height, width, 3), np.uint8)
    bgr[: height // 2, : width // 2] = 200, 40, 40
    bgr[: height // 2, width // 2 :] = 40, 200, 40
    bgr[height // 2 :, : width // 2] = 40, 40, 200
    bgr[height // 2 :, width // 2 :] = 220, 220, 220
    return bgr


def shown(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def file(bgr, suffix=".jpg"):
    _, data = cv2.imencode(suffix, bgr)
    return Frame(Header(), suffix.strip(".").replace("jpg", "jpeg"), data.reshape(-1))


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "nv12", "yuv422_yuy2"])
@pytest.mark.parametrize("size", [(1280, 720), (320, 240), (642, 18)])
def test_frames_keep_their_colours_and_shape(encoding, size):
    width, height = size
    bgr = picture(width, height)
    result = shown(JpegEncoder(640)(encode(Frame.from_bgr(bgr), encoding)))
    assert result.shape[1] == min(width, 640)
    assert result.shape[0] == pytest.approx(height * result.shape[1] / width, abs=1)
    for row in (0.25, 0.75):
        for column in (0.25, 0.75):
            at = int(row * result.shape[0]), int(column * result.shape[1])
            expected = bgr[int(row * height), int(column * width)]
            assert result[at].astype(int) == pytest.approx(expected.astype(int), abs=45)


def test_a_small_jpeg_is_passed_on_byte_by_byte():
    frame = file(picture(640, 480))
    assert JpegEncoder(640)(frame) == frame.data.tobytes()


@pytest.mark.parametrize("width", [641, 1280, 5000])
def test_a_wide_jpeg_is_shrunk(width):
    frame = file(picture(width, 600))
    assert shown(JpegEncoder(640)(frame)).shape[1] == 640


def test_a_large_file_is_made_smaller():
    noise = np.random.default_rng(1).integers(0, 256, (640, 640, 3), np.uint8)
    _, data = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert data.size > 300_000
    assert len(JpegEncoder(640)(Frame(Header(), "jpeg", data.reshape(-1)))) < data.size / 2


def test_a_png_becomes_a_jpeg():
    jpeg = JpegEncoder(640)(file(picture(100, 80), ".png"))
    assert jpeg.startswith(b"\xff\xd8") and shown(jpeg).shape == (80, 100, 3)


def test_a_file_that_says_it_is_a_jpeg_is_looked_at():
    jpeg = JpegEncoder(640)(Frame(Header(), "jpeg", file(picture(100, 80), ".png").data))
    assert jpeg.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Header(), "jpeg", np.zeros(100, np.uint8)),
        Frame(Header(), "bgr8", np.zeros(10, np.uint8), 100, 100, 300),
        Frame(Header(), "no such", np.zeros(300, np.uint8), 10, 10, 30),
        Frame(Header(), "bgr8", np.zeros(3 * 70_000, np.uint8), 70_000, 1, 3),
    ],
)
def test_what_is_no_picture_is_refused(frame):
    with pytest.raises(FrameError):
        JpegEncoder(640)(frame)
