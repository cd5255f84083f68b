"""The size of a picture, upright, against the decoder's."""

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_nv12 import file_frame

from efv2_ros.vision.compressed import decode, read_header
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.upright import picture_size

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def array(data):
    return np.frombuffer(data, np.uint8)


def with_exif(tiff):
    """A JPEG of 40x24 pixels with these EXIF data."""
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(tiff)) + b"Exif\0\0" + tiff
    plain = file_frame("jpeg", PICTURE).data.tobytes()
    return array(plain[:2] + exif + plain[2:])


def test_a_raw_frame_says_its_size():
    frame = Frame(Header(), "nv12", np.zeros(32 * 36, np.uint8), 24, 32, 32)
    assert picture_size(frame) == (32, 24)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_file_without_exif(kind):
    assert picture_size(file_frame(kind, PICTURE)) == (40, 24)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_the_size_is_that_of_the_decoded_picture(kind, endian, orientation):
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif.endian = endian
    # A text before the orientation, and a directory behind it, as cameras write them.
    exif[0x010F], exif[0x0112], exif[0x8769] = "Maker", orientation, {0x9000: b"0230"}
    file = io.BytesIO()
    image.fromarray(PICTURE).save(file, kind, exif=exif)
    data = array(file.getvalue())
    decoded = decode(data, read_header(data))
    assert picture_size(Frame(Header(), kind.lower(), data)) == decoded.shape[1::-1]
    assert (decoded.shape[0] == 40) == (5 <= orientation <= 8)


@pytest.mark.parametrize("marker", [0xE0, 0xE1])
def test_a_segment_before_the_exif(marker):
    """OpenCV passes others, but reads no second APP1."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    data = with_exif(tiff).tobytes()
    xmp = b"http://ns.adobe.com/xap/1.0/\0"
    segment = bytes([0xFF, marker]) + struct.pack(">H", 2 + len(xmp)) + xmp
    data = array(data[:2] + segment + data[2:])
    size = cv2.imdecode(data, cv2.IMREAD_COLOR).shape[1::-1]
    assert picture_size(Frame(Header(), "jpeg", data)) == size


@given(st.binary(max_size=80), st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_whatever_the_exif_data_say(tiff, start):
    frame = Frame(Header(), "jpeg", with_exif(start + tiff))
    try:
        assert picture_size(frame) in ((40, 24), (24, 40))
    except FrameError as error:
        assert "EXIF" in str(error)


def test_a_file_that_cannot_be_read_has_no_size():
    with pytest.raises(FrameError, match="neither JPEG nor PNG"):
        picture_size(Frame(Header(), "jpeg", np.zeros(100, np.uint8)))
    with pytest.raises(FrameError, match="max_pixels"):
        picture_size(file_frame("png", PICTURE), max_pixels=100)
