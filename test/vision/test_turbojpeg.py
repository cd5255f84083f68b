"""JPEGs decoded by libturbojpeg, against OpenCV's decoding and the float64 reference."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import cv2
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nv12 import FITS, assert_close, expected, file_frame, region

from efv2_ros.cli import doctor
from efv2_ros.vision import turbojpeg
from efv2_ros.vision.compressed import read_header
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.nv12 import Nv12Converter, Roi
from efv2_ros.vision.planes import Nv12Planes
from efv2_ros.vision.turbojpeg import JpegDecoder

pytestmark = pytest.mark.skipif(turbojpeg.load() is None, reason="libturbojpeg is not installed")

SHARED = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "440": (1, 2), "411": (4, 1)}


def jpeg(rgb, *parameters, sampling="420"):
    """A JPEG of the best quality, uint8, 1-D."""
    if sampling != "420":  # OpenCV's default
        if not hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"):
            pytest.skip("this OpenCV writes no other subsampling")
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
        parameters += (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
    best = (cv2.IMWRITE_JPEG_QUALITY, 100)
    return file_frame("jpeg", rgb[..., ::-1], *best, *parameters).data


def with_segment(data, marker, content):
    """The JPEG with one more segment behind its start."""
    segment = bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content
    return np.concatenate([data[:2], np.frombuffer(segment, np.uint8), data[2:]])


def decoded(data, reduction=1, decoder=None, **options):
    return (decoder or JpegDecoder()).decode(data, read_header(data), reduction, **options)


def frame_of(data):
    return Frame(Header(), "jpeg", data)


def without_library():
    return mock.patch.object(turbojpeg, "load", lambda: None)


@pytest.mark.numpy2
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(320, 240), (333, 251), (17, 9), (1, 1)], ids=str)
@pytest.mark.parametrize("sampling", SHARED)
def test_planes(sampling, size, reduction):
    """Y is bit for bit OpenCV's grey picture; U and V are means of the pixels that share them."""
    rgb = reference.picture(*size, blob=100)
    data = jpeg(rgb, sampling=sampling)
    picture = decoded(data, reduction)
    assert picture.shared == SHARED[sampling]
    flags = {
        1: cv2.IMREAD_GRAYSCALE,
        2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
        4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
        8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    }
    grey = cv2.imdecode(data, flags[reduction])
    assert np.array_equal(picture.planes[0][: grey.shape[0], : grey.shape[1]], grey)
    columns, rows = (reduction * each for each in picture.shared)
    for plane, wanted in zip(picture.planes[1:], reference.rgb_to_yuv(rgb)[1:], strict=True):
        assert plane.shape == (-(-size[1] // rows), -(-size[0] // columns))
        # An encoder repeats the last pixel in a block that the picture does not fill.
        padding = (-size[1] % rows, -size[0] % columns)
        padded = np.pad(wanted, [(0, each) for each in padding], mode="edge")
        means = padded.reshape(plane.shape[0], rows, plane.shape[1], columns).mean(axis=(1, 3))
        # JPEG rounds twice more: in the encoder's chroma and its coefficients.
        assert np.abs(plane - means).max() <= 4
        assert np.abs(plane - means).mean() <= 1


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(500, 375), (501, 333), (1001, 999)], ids=str)
@pytest.mark.parametrize("sampling", SHARED)
def test_every_subsampling(sampling, size, fit, antialias):
    rgb = reference.picture(*size, blob=100)
    data = jpeg(rgb, sampling=sampling)
    assert decoded(data)
    where = reference.grid(fit, *size, 224, 224)
    sample = reference.antialiased if antialias else reference.bilinear
    wanted = expected(reference.sampled_rgb(rgb, where, sample), where)
    # JPEG rounds three times more than a raw frame. Reduced to a quarter, chroma are means of 8
    # pixels, of 4:1:1 even 16: wider than an output sample, they round the picture's corners off.
    result = Nv12Converter(fit=fit, antialias=antialias).convert(frame_of(data))
    assert_close(result, wanted, 10 if sampling == "411" else 5, 0.5)


@pytest.mark.parametrize(
    "parameters", [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)], ids=str
)
def test_other_ways_to_write_the_same(parameters):
    rgb = reference.picture(640, 480)
    plain, other = jpeg(rgb), jpeg(rgb, *parameters)
    assert decoded(other)
    convert = Nv12Converter().convert
    assert np.array_equal(convert(frame_of(plain)), convert(frame_of(other)))


def test_grey_is_one_plane():
    grey = np.ascontiguousarray(reference.picture(320, 240)[..., 0])
    data = file_frame("jpeg", grey).data
    (plane,) = decoded(data).planes
    assert np.array_equal(plane, cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    assert np.all(Nv12Converter().convert(frame_of(data))[224:] == 128)


def test_the_range_is_the_models():
    white = jpeg(np.full((64, 64, 3), 255, np.uint8))
    assert np.all(Nv12Converter().convert(frame_of(white))[:224] == 255)
    limited = Nv12Converter(nv12_range="limited").convert(frame_of(white))
    assert np.all(limited[:224] == 235)


@pytest.mark.parametrize(
    ("origin", "taken"),
    [((4, 2), True), ((2, 4), True), ((3, 2), False), ((2, 3), False), ((8, 4), True)],
)
def test_a_region_starts_on_a_whole_chroma_sample(origin, taken):
    """Or it is left to OpenCV, and not a bit off."""
    rgb = reference.picture(640, 480, blob=30)
    data = jpeg(rgb)
    assert (decoded(data, origin=origin) is not None) == taken
    roi = Roi(*origin, 230, 230)
    where = reference.grid("stretch", 230, 230, 224, 224)
    planes = reference.sampled_rgb(region(rgb, roi), where, reference.antialiased)
    result = Nv12Converter(fit="stretch", roi=roi).convert(frame_of(data))
    assert_close(result, expected(planes, where), 6, 0.6)


def test_the_reduction_counts_for_where_a_region_starts():
    data = jpeg(reference.picture(640, 480))
    assert decoded(data, 2, origin=(4, 4))
    assert not decoded(data, 2, origin=(2, 2))


# What is left to OpenCV


def adobe_rgb():
    """Y, Cb, Cr declared to be R, G, B, as Adobe's transform 0 says."""
    adobe = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)
    plain = jpeg(reference.picture(320, 240), sampling="444")
    jfif = 2 + 2 + int.from_bytes(plain[4:6].tobytes(), "big")  # JFIF would say YCbCr
    return with_segment(np.concatenate([plain[:2], plain[jfif:]]), 0xEE, adobe)


def cmyk():
    image = pytest.importorskip("PIL.Image")
    from io import BytesIO

    file = BytesIO()
    image.fromarray(reference.picture(320, 240)).convert("CMYK").save(file, "JPEG")
    return np.frombuffer(file.getvalue(), np.uint8)


def exif():
    return with_segment(jpeg(reference.picture(320, 240)), 0xE1, b"Exif\0\0II*\0")


def late_exif():
    """With its EXIF between the frame header and the data."""
    plain = jpeg(reference.picture(320, 240))
    at = plain.tobytes().index(b"\xff\xda")
    segment = with_segment(plain[:2], 0xE1, b"Exif\0\0II*\0")[2:]
    return np.concatenate([plain[:at], segment, plain[at:]])


@pytest.mark.parametrize("make", [adobe_rgb, cmyk, exif, late_exif])
def test_other_files_are_left_to_opencv(make):
    data = make()
    assert decoded(data) is None
    result = Nv12Converter().convert(frame_of(data))
    with without_library():
        assert np.array_equal(result, Nv12Converter().convert(frame_of(data)))


def test_a_png_is_none_of_its_business():
    data = file_frame("png", reference.picture(64, 64)).data
    assert decoded(data) is None


# Broken files


GOOD = jpeg(reference.picture(320, 240)).tobytes()
PROGRESSIVE = jpeg(reference.picture(320, 240), cv2.IMWRITE_JPEG_PROGRESSIVE, 1).tobytes()


@st.composite
def mutilated(draw):
    """A JPEG with bytes changed, left out or put in; the end marker may stay."""
    source = draw(st.sampled_from([GOOD, PROGRESSIVE]))
    first = draw(st.integers(2, len(source) - 2))
    last = min(len(source) - 2, first + draw(st.sampled_from([0, 1, 2, 700, 10**6])))
    data = source[:first] + draw(st.binary(max_size=9)) + source[last:]
    return np.frombuffer(data, np.uint8)


used_converter = Nv12Converter(32, 16)


@given(mutilated())
@settings(max_examples=600, deadline=None)
def test_broken_files_are_judged_as_without_the_library(data):
    def outcome(converter):
        try:
            return converter.convert(frame_of(data)).shape
        except FrameError as error:
            return error.fault

    with without_library():
        wanted = outcome(Nv12Converter(32, 16))
    assert outcome(used_converter) == wanted


def test_a_broken_file_leaves_nothing_behind():
    decoder = JpegDecoder()
    good = np.frombuffer(GOOD, np.uint8)
    before = [plane.copy() for plane in decoded(good, decoder=decoder).planes]
    table = GOOD.index(b"\xff\xc4")
    for broken in (
        GOOD[: table + 5] + b"\xff" * 16 + GOOD[table + 21 :],  # an impossible Huffman table
        GOOD[: len(GOOD) // 2] + b"\xff\xd9",
    ):
        assert decoded(np.frombuffer(broken, np.uint8), decoder=decoder) is None
        after = decoded(good, decoder=decoder).planes
        assert all(map(np.array_equal, before, after))


def test_a_damaged_progressive_file_is_given_up_at_once():
    """OpenCV decodes it: it should cost that once. So the planes keep the picture before it."""
    parameters = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", reference.picture(320, 240), parameters)[1].reshape(-1)
    decoder = JpegDecoder()
    planes = decoded(data, decoder=decoder).planes
    before = [plane.copy() for plane in planes]
    first = data.tobytes().index(b"\xff\xda")
    damaged = np.delete(data, slice(first + 60, first + 120))
    assert decoded(damaged, decoder=decoder) is None
    assert all(map(np.array_equal, planes, before))
    assert Nv12Converter().convert(frame_of(damaged)).any()


def test_stuffing_before_the_end_marker_is_harmless():
    """As many USB cameras' frames have it: libjpeg warns, and the picture is whole."""
    stuffed = np.frombuffer(GOOD[:-2] + bytes(7) + GOOD[-2:], np.uint8)
    picture = decoded(stuffed)
    assert picture is not None
    wanted = decoded(np.frombuffer(GOOD, np.uint8))
    assert all(map(np.array_equal, picture.planes, wanted.planes))


# Memory and threads


def test_memory_is_set_up_once():
    out = Nv12Planes.of(np.empty((336, 224), np.uint8))
    frame = frame_of(jpeg(reference.picture(1280, 960)))
    assert frame.data.size > 200_000
    converter = Nv12Converter()
    converter.convert_into(frame, out)
    tracemalloc.start()
    converter.convert_into(frame, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000


def test_one_decoder_takes_any_sequence():
    rgb = reference.picture(320, 240)
    decoder = JpegDecoder()
    for sampling in ("420", "444", "411", "420"):
        data = jpeg(rgb, sampling=sampling)
        planes, fresh = decoded(data, decoder=decoder).planes, decoded(data).planes
        assert all(map(np.array_equal, planes, fresh))


def test_two_converters_in_two_threads():
    frames = [
        [frame_of(jpeg(reference.picture(640, 480, seed), sampling=each)) for each in SHARED]
        for seed in range(2)
    ]
    wanted = [[Nv12Converter().convert(frame) for frame in each] for each in frames]

    def work(mine, results):
        converter = Nv12Converter()
        return all(
            np.array_equal(converter.convert(frame), result)
            for _ in range(10)
            for frame, result in zip(mine, results, strict=True)
        )

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(work, frames, wanted))


# Where the library is


def test_importing_loads_nothing():
    code = (
        "from efv2_ros.vision import nv12, turbojpeg; nv12.Nv12Converter(); "
        "assert turbojpeg.load.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_systems_library_comes_first_and_incomplete_ones_are_passed_over(monkeypatch):
    whole = turbojpeg.load()
    tried = []

    def cdll(name):
        tried.append(name)
        if len(tried) == 1:
            raise OSError("no such file")
        return object() if len(tried) == 2 else whole

    monkeypatch.setattr(ctypes, "CDLL", cdll)
    monkeypatch.setattr(turbojpeg, "_bundled", lambda: ["incomplete", "whole"])
    assert turbojpeg.load.__wrapped__() is whole
    assert tried == ["libturbojpeg.so.0", "incomplete", "whole"]


def test_the_wheels_library_is_found_without_importing_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "turbojpeg.py").write_text("raise AssertionError('imported')")
    assert turbojpeg._bundled() == []
    library = tmp_path / "turbojpeg.libs" / "libturbojpeg-0123abcd.so.0.3.0"
    library.parent.mkdir()
    library.touch()
    assert turbojpeg._bundled() == [str(library)]


def test_no_library(monkeypatch):
    monkeypatch.setattr(turbojpeg, "find_spec", lambda name: None)
    monkeypatch.setattr(ctypes, "CDLL", mock.Mock(side_effect=OSError))
    assert turbojpeg.load.__wrapped__() is None


def test_the_doctor_names_it():
    def line():
        return next(each for each in doctor.examine() if each.subject == "libturbojpeg")

    assert line().verdict == "ok"
    assert "libturbojpeg" in line().detail
    with without_library():
        assert (line().verdict, "apt install libturbojpeg" in line().fix) == ("info", True)
