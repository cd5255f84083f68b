"""Photos: their size is known before they are decoded."""

import struct

import cv2
import numpy as np
import pytest
from hostile_files import lying_png, png
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pictures import picture, write_video

from efv2_ros.pictures.dimensions import declared_size
from efv2_ros.pictures.photo import read_photo
from efv2_ros.pictures.pictures import Pictures, PicturesError
from efv2_ros.vision.frame import FrameError

SUFFIXES = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pgm")
WIDTH, HEIGHT = 36, 22


def encoded(suffix, *parameters):
    bgr = picture(0, WIDTH, HEIGHT)
    pixels = bgr[..., 0] if suffix == ".pgm" else bgr
    return cv2.imencode(suffix, pixels, parameters)[1].tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_limit_on_the_size(tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(encoded(suffix))
    frame = read_photo(path, WIDTH * HEIGHT)
    assert (frame.width, frame.height) == (WIDTH, HEIGHT)
    wanted = cv2.imread(str(path))
    assert np.array_equal(frame.data.reshape(wanted.shape), wanted)
    with pytest.raises(FrameError, match=f"photo{suffix}: the image declares 36x22") as caught:
        read_photo(path, WIDTH * HEIGHT - 1)
    assert caught.value.fault == "size"


def tiff(order, *fields):
    """A TIFF of a directory only: tag, type and value of each field."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(fields))
    for tag, kind, value in fields:
        start += struct.pack(f"{order}HHI", tag, kind, 1)
        start += struct.pack(order + {3: "Hxx", 4: "I"}[kind], value)
    return start


def webp(kind, content):
    return b"RIFF\0\0\0\0WEBP" + kind + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize(
    ("contents", "size"),
    [
        (encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, 50), (36, 22)),
        (encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, 101), (36, 22)),  # without loss
        (webp(b"VP8X", bytes(4) + b"\x34\x12\x01" + b"\xff\xff\xff"), (0x11235, 1 << 24)),
        (tiff("<", (256, 3, 5), (257, 4, 70_000)), (5, 70_000)),
        (tiff(">", (256, 4, 70_000), (257, 3, 5)), (70_000, 5)),
        (tiff("<", (256, 3, 5), (257, 3, 7), (322, 3, 60_000), (323, 3, 500)), (60_000, 500)),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, 9, -8) + bytes(40), (9, 8)),
        (b"BM" + bytes(12) + struct.pack("<IHH", 12, 9, 8) + bytes(40), (9, 8)),
        (b"P6\n# a comment\n9 # another\n8 255\n", (9, 8)),
    ],
)  # fmt: skip
def test_declared_sizes(contents, size):
    assert declared_size(memoryview(contents)) == size


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"no picture",
        b"P9 1 1 ",
        b"P6 1234567890 1 255\n",
        b"BM",
        tiff("<", (256, 3, 5)),
        tiff("<", (256, 3, 5), (257, 3, 5), (259, 3, 34925)),  # LZMA, which asks for any memory
        tiff("<", (256, 3, 5))[:-9],
        encoded(".webp")[:20],
        b"GIF89a" + bytes(50),
    ],
)
def test_files_without_a_size_are_no_images(tmp_path, contents):
    path = tmp_path / "photo"
    path.write_bytes(contents)
    with pytest.raises(FrameError, match="photo is not an image OpenCV can decode") as caught:
        read_photo(path)
    assert caught.value.fault == "decode"


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"BM", b"II*\0", b"MM\0*", b"P6", webp(b"VP8X", b"")]),
)
@example(b"\xff" * 60, b"II*\0")
@settings(max_examples=300, deadline=None)
def test_any_bytes_have_a_size_or_are_an_error(content, start):
    try:
        assert len(declared_size(memoryview(start + content))) == 2
    except FrameError as error:
        assert str(error)


def test_a_lying_photo_is_none(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(lying_png())
    with pytest.raises(FrameError, match=r"photo\.png: .*cut off"):
        read_photo(path)


def test_a_file_too_large_for_its_limit_is_not_read(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png(1, 1))
    with path.open("r+b") as file:
        file.truncate(100 << 20)  # a hole, that takes no room on the disk
    assert read_photo(path)
    with pytest.raises(FrameError, match="larger than an image of 4000000 pixels") as caught:
        read_photo(path, 4_000_000)
    assert caught.value.fault == "size"


def test_the_limit_goes_for_folders_and_videos(tmp_path):
    (tmp_path / "small.png").write_bytes(png(30, 20))
    (tmp_path / "large.png").write_bytes(png(30, 21))
    said = []
    frames = list(Pictures([tmp_path], said.append, max_pixels=600).once())
    assert [frame.header.frame_id for frame in frames] == ["small.png"]
    (sentence,) = said
    assert "large.png: the image declares 30x21 pixels" in sentence
    video = write_video(tmp_path / "video.avi")
    assert len(list(Pictures([video], pytest.fail, max_pixels=64 * 48).once())) == 3
    with pytest.raises(PicturesError, match="64x48"):
        Pictures([video], pytest.fail, max_pixels=64 * 48 - 1)


def test_a_path_may_be_text(photos):
    np.testing.assert_array_equal(read_photo(str(photos[0])).data, read_photo(photos[0]).data)
