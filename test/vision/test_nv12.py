"""Frames to NV12, against the float64 reference."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from efv2_ros.vision import turbojpeg
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.geometry import Window, fit_axes
from efv2_ros.vision.nv12 import Nv12Converter, Roi, check
from efv2_ros.vision.pixels import COMPRESSED, PIXEL_FORMATS
from efv2_ros.vision.planes import Nv12Planes

FITS = ("crop", "letterbox", "stretch")
RANGES = ("full", "limited")
COLOUR = {
    "rgb8": lambda rgb: rgb,
    "bgr8": lambda rgb: rgb[..., ::-1],
    "8UC3": lambda rgb: rgb[..., ::-1],
    "rgba8": lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)]),
    "bgra8": lambda rgb: np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 9, np.uint8)]),
}
BAYER = ("rggb", "bggr", "gbrg", "grbg")

# Levels out of 255. A fast result is rounded to a level in up to three steps (resize: 0.75, as
# OpenCV's fixed point truncates; 2x2 mean: 0.5; colours or range: 0.5, after a gain of up to
# 1.16), and a crop's phase may be off by 1/30 pixel: 0.7 at the test picture's steepest, 20
# levels a pixel.
WORST = 2.6
# Rounding errors alone are uniform within +-0.5, so 0.25 on average for one step.
MEAN = 0.5

SAMPLING = {False: reference.bilinear, True: reference.antialiased}
both_samplings = pytest.mark.parametrize("antialias", SAMPLING, ids=["plain", "antialias"])
# Means round to a level once more.
WORSE = {False: WORST, True: WORST + 0.5}


def frame_of(encoding, array, width, height, step=None, big_endian=False):
    data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    if step is None:
        step = width * PIXEL_FORMATS[encoding].channels
    return Frame(Header(), encoding, data, height, width, step, big_endian)


def file_frame(encoding, array, *parameters):
    name = {"jpeg": ".jpg", "png": ".png"}[encoding]
    return Frame(Header(), encoding, cv2.imencode(name, array, parameters)[1].reshape(-1))


def expected(planes, where, nv12_range="full", source_range="full", size=(224, 224)):
    if source_range == "limited" and nv12_range == "full":
        planes = reference.to_full(*planes)
    elif source_range == "full" and nv12_range == "limited":
        planes = reference.to_limited(*planes)
    grey = 127 if nv12_range == "full" else 16 + 127 * 219 / 255
    return reference.assemble(planes, where, *size, grey)


def assert_close(result, wanted, worst=WORST, mean=MEAN):
    assert result.dtype == np.uint8
    error = np.abs(result.astype(np.float64) - wanted)
    rows = result.shape[0] // 3 * 2
    for part in (error[:rows], error[rows:]):
        assert part.max() <= worst
        assert part.mean() <= mean


def region(image, roi):
    return image[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width]


def yuv_planes(width, height, limited=False):
    planes = reference.rgb_to_yuv(reference.picture(width, height))
    if limited:
        planes = reference.to_limited(*planes)
    return [np.rint(np.clip(plane, 0, 255)).astype(np.uint8) for plane in planes]


def nv_frame(encoding, y, u, v):
    height, width = y.shape
    pair = (u, v) if encoding == "nv12" else (v, u)
    chroma = np.stack(pair, -1).reshape(height // 2, width)
    return frame_of(encoding, np.concatenate([y, chroma]), width, height)


def packed_frame(encoding, y, u, v):
    height, width = y.shape
    left, right = y[:, 0::2], y[:, 1::2]
    yuyv = encoding in ("yuyv", "yuv422_yuy2")
    order = (left, u, right, v) if yuyv else (u, left, v, right)
    return frame_of(encoding, np.stack(order, -1), width, height)


# Colours and geometry, encoding by encoding


@pytest.mark.numpy2
@both_samplings
@pytest.mark.parametrize("nv12_range", RANGES)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("encoding", COLOUR)
def test_colour(encoding, fit, nv12_range, antialias):
    width, height = 320, 180
    rgb = reference.picture(width, height)
    where = reference.grid(fit, width, height, 224, 224)
    frame = frame_of(encoding, COLOUR[encoding](rgb), width, height)
    result = Nv12Converter(fit=fit, nv12_range=nv12_range, antialias=antialias).convert(frame)
    planes = reference.sampled_rgb(rgb, where, SAMPLING[antialias])
    assert_close(result, expected(planes, where, nv12_range), WORSE[antialias])


@both_samplings
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "size",
    [
        (640, 480),
        (448, 448),
        (480, 640),
        (1920, 1080),
        (64, 48),
        (501, 333),
        (235, 235),
        (236, 236),
        (90, 1000),
    ],
    ids=str,
)
def test_geometry(size, fit, antialias):
    rgb = reference.picture(*size)
    where = reference.grid(fit, *size, 224, 224)
    result = Nv12Converter(fit=fit, antialias=antialias).convert(frame_of("rgb8", rgb, *size))
    planes = reference.sampled_rgb(rgb, where, SAMPLING[antialias])
    assert_close(result, expected(planes, where), WORSE[antialias])


@both_samplings
@given(st.integers(40, 700), st.integers(40, 700), st.sampled_from(FITS), st.data())
@settings(max_examples=60, deadline=None)
def test_geometry_of_any_size_and_region(antialias, width, height, fit, data):
    left = data.draw(st.integers(0, width - 20))
    top = data.draw(st.integers(0, height - 20))
    roi = Roi(
        left,
        top,
        data.draw(st.integers(20, width - left)),
        data.draw(st.integers(20, height - top)),
    )
    rgb = reference.picture(width, height)
    where = reference.grid(fit, roi.width, roi.height, 224, 224)
    converter = Nv12Converter(fit=fit, roi=roi, antialias=antialias)
    result = converter.convert(frame_of("rgb8", rgb, width, height))
    planes = reference.sampled_rgb(region(rgb, roi), where, SAMPLING[antialias])
    assert_close(result, expected(planes, where), WORSE[antialias])


@both_samplings
@given(st.integers(20, 350), st.integers(20, 350), st.sampled_from(FITS))
@settings(max_examples=60, deadline=None)
def test_chroma_geometry_of_any_size(antialias, half_width, half_height, fit):
    y, u, v = yuv_planes(2 * half_width, 2 * half_height)
    u, v = u[::2, ::2], v[::2, ::2]
    where = reference.grid(fit, 2 * half_width, 2 * half_height, 224, 224)
    result = Nv12Converter(fit=fit, antialias=antialias).convert(nv_frame("nv12", y, u, v))
    wanted = expected(reference.sampled_yuv(y, u, v, where, SAMPLING[antialias]), where)
    assert_close(result[:224], wanted[:224], WORSE[antialias])
    # Half a chroma sample off, on the steepest chroma of 2 * 20 levels a sample.
    assert np.abs(result[224:] - wanted[224:]).max() <= WORST + 20


@st.composite
def size_and_region(draw):
    width, height = (2 * draw(st.integers(2, 900)) for _ in "wh")
    x, y = draw(st.integers(0, width - 4)), draw(st.integers(0, height - 4))
    return (
        (width, height),
        Roi(x, y, draw(st.integers(4, width - x)), draw(st.integers(4, height - y))),
    )


@given(
    size_and_region(),
    st.sampled_from(FITS),
    st.sampled_from([(224, 224), (32, 16), (384, 384)]),
    st.sampled_from(["nv12", "yuv422", "bayer_rggb8"]),
)
@example(((1194, 536), Roi(621, 19, 49, 381)), "letterbox", (384, 384), "nv12")
@example(((1896, 564), Roi(915, 46, 377, 76)), "stretch", (384, 384), "nv12")
@settings(max_examples=150, deadline=None)
def test_every_region_fills_the_picture(size_and_roi, fit, target, encoding):
    """A flat region in noise: nothing from outside leaks in, no output sample is left out.

    Demosaicing looks 2 pixels beyond, so the flat part is a little larger than the region.
    """
    (width, height), roi = size_and_roi
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width), np.uint8)
    flat = (
        slice(max(0, roi.y - 3), roi.y + roi.height + 3),
        slice(max(0, roi.x - 3), roi.x + roi.width + 3),
    )
    image[flat] = 100
    if encoding == "bayer_rggb8":
        frame, chroma = frame_of(encoding, image, width, height), 128
    else:
        u = np.full((height, width), 60, np.uint8)
        u = u[::2, ::2] if encoding == "nv12" else u[:, ::2]
        frame = (nv_frame if encoding == "nv12" else packed_frame)(encoding, image, u, u)
        chroma = 60
    converter = Nv12Converter(*target, fit=fit, roi=roi, input_range="full")
    result = converter.convert(frame).astype(int)
    wide, tall = target
    where = reference.grid("stretch" if fit == "crop" else fit, roi.width, roi.height, wide, tall)
    planes = (np.full((len(where[1]), len(where[0])), 100.0),) + (
        np.full((len(where[1]) // 2, len(where[0]) // 2), float(chroma)),
    ) * 2
    assert np.abs(result - reference.assemble(planes, where, wide, tall)).max() <= 1


def test_crop_starts_where_timm_starts():
    """Of a 235-pixel picture the crop must drop column 5 and keep column 6."""
    picture = np.zeros((235, 235), np.uint8)
    picture[:, 5] = 80
    picture[:, 6] = 160
    picture[6, :] = 240
    y = Nv12Converter().convert(frame_of("mono8", picture, 235, 235))[:224]
    assert np.all(y[1:, 0] == 160)
    assert np.all(y[1:, 1:] == 0)
    assert np.all(y[0] == 240)


@pytest.mark.parametrize("size", [(128, 128), (320, 192), (192, 320), (384, 384)], ids=str)
def test_other_model_sizes(size):
    width, height = 500, 375
    rgb = reference.picture(width, height)
    for fit in ("letterbox", "stretch"):
        where = reference.grid(fit, width, height, *size)
        result = Nv12Converter(*size, fit=fit).convert(frame_of("rgb8", rgb, width, height))
        planes = reference.sampled_rgb(rgb, where, reference.antialiased)
        assert_close(result, expected(planes, where, size=size), WORSE[True])


def test_crop_for_a_model_that_is_not_square():
    """timm's ResizeKeepRatio((202, 336)) of 500x375 gives 448x336; the crop starts at (64, 8)."""
    rgb = reference.picture(500, 375)
    where = (reference.positions(500, 448, 128, 192), reference.positions(375, 336, 8, 320), 0, 0)
    result = Nv12Converter(192, 320).convert(frame_of("rgb8", rgb, 500, 375))
    planes = reference.sampled_rgb(rgb, where, reference.antialiased)
    assert_close(result, expected(planes, where, size=(192, 320)), WORSE[True])


@pytest.mark.numpy2
@both_samplings
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
@pytest.mark.parametrize("nv12_range", RANGES)
@pytest.mark.parametrize("input_range", ["auto", *RANGES])
def test_nv12_and_nv21(encoding, fit, nv12_range, input_range, antialias):
    source_range = nv12_range if input_range == "auto" else input_range
    width, height = 320, 180
    y, u, v = yuv_planes(width, height, source_range == "limited")
    u, v = u[::2, ::2], v[::2, ::2]
    where = reference.grid(fit, width, height, 224, 224)
    converter = Nv12Converter(
        fit=fit, nv12_range=nv12_range, input_range=input_range, antialias=antialias
    )
    planes = reference.sampled_yuv(y, u, v, where, SAMPLING[antialias])
    wanted = expected(planes, where, nv12_range, source_range)
    assert_close(converter.convert(nv_frame(encoding, y, u, v)), wanted, WORSE[antialias])


@pytest.mark.numpy2
@both_samplings
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
@pytest.mark.parametrize("nv12_range", RANGES)
@pytest.mark.parametrize("input_range", ["auto", *RANGES])
def test_yuv422(encoding, fit, nv12_range, input_range, antialias):
    source_range = "limited" if input_range == "auto" else input_range
    width, height = 320, 179
    y, u, v = yuv_planes(width, height, source_range == "limited")
    u, v = u[:, ::2], v[:, ::2]
    where = reference.grid(fit, width, height, 224, 224)
    converter = Nv12Converter(
        fit=fit, nv12_range=nv12_range, input_range=input_range, antialias=antialias
    )
    planes = reference.sampled_yuv(y, u, v, where, SAMPLING[antialias])
    wanted = expected(planes, where, nv12_range, source_range)
    assert_close(converter.convert(packed_frame(encoding, y, u, v)), wanted, WORSE[antialias])


@both_samplings
@pytest.mark.parametrize("nv12_range", RANGES)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "mono16", "mono16 big"])
def test_mono(encoding, fit, nv12_range, antialias):
    width, height = 301, 203
    grey = reference.picture(width, height)[..., 0]
    pixels = grey
    if encoding.startswith("mono16"):
        # The low byte must not matter.
        noise = np.random.default_rng(0).integers(0, 256, grey.shape)
        pixels = (grey.astype(np.uint16) * 256 + noise).astype(
            ">u2" if "big" in encoding else "<u2"
        )
    frame = frame_of(
        encoding.split()[0], pixels, width, height, big_endian=encoding == "mono16 big"
    )
    where = reference.grid(fit, width, height, 224, 224)
    planes = reference.sampled_rgb(np.dstack([grey] * 3), where, SAMPLING[antialias])
    result = Nv12Converter(fit=fit, nv12_range=nv12_range, antialias=antialias).convert(frame)
    assert_close(result, expected(planes, where, nv12_range), WORSE[antialias])
    assert np.all(result[224:] == 128)


def demosaiced(mosaic, pattern):
    """Bilinear: a missing colour is the mean of its nearest neighbours. Wrong at the border."""
    kernels = {
        "g": np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4,
        "rb": np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4,
    }
    rgb = np.zeros((*mosaic.shape, 3))
    for index, letter in enumerate(pattern):
        row, column = divmod(index, 2)
        channel = "rgb".index(letter)
        rgb[row::2, column::2, channel] = mosaic[row::2, column::2]
    for channel, kernel in enumerate((kernels["rb"], kernels["g"], kernels["rb"])):
        padded = np.pad(rgb[..., channel], 1)
        rgb[..., channel] = sum(
            kernel[dy, dx] * padded[dy : dy + mosaic.shape[0], dx : dx + mosaic.shape[1]]
            for dy in range(3)
            for dx in range(3)
        )
    return rgb


@both_samplings
@pytest.mark.parametrize("nv12_range", RANGES)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("pattern", BAYER)
def test_bayer(pattern, fit, nv12_range, antialias):
    # The region keeps clear of the border, where OpenCV repeats pixels.
    width, height, roi = 331, 241, Roi(14, 7, 300, 220)
    mosaic = reference.bayer_mosaic(reference.picture(width, height), pattern)
    where = reference.grid(fit, roi.width, roi.height, 224, 224)
    planes = reference.sampled_rgb(
        region(demosaiced(mosaic, pattern), roi), where, SAMPLING[antialias]
    )
    frame = frame_of(f"bayer_{pattern}8", mosaic, width, height)
    converter = Nv12Converter(fit=fit, roi=roi, nv12_range=nv12_range, antialias=antialias)
    # Demosaicing rounds to a level once more.
    wanted = expected(planes, where, nv12_range)
    assert_close(converter.convert(frame), wanted, WORSE[antialias] + 0.5)


@pytest.mark.parametrize("pattern", BAYER)
def test_bayer_pattern_is_named_as_in_ros(pattern):
    """A red picture stays red: U below and V far above neutral."""
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    mosaic = reference.bayer_mosaic(red, pattern)
    result = Nv12Converter().convert(frame_of(f"bayer_{pattern}8", mosaic, 64, 64))
    y, u, v = reference.rgb_to_yuv(np.array([200, 0, 0]))
    assert result[100, 100] == pytest.approx(y, abs=1)
    assert result[300, 100:102] == pytest.approx([u, v], abs=1)


@pytest.mark.numpy2
@pytest.mark.parametrize(
    ("name", "rgb"),
    [
        ("white", (255, 255, 255)),
        ("black", (0, 0, 0)),
        ("red", (255, 0, 0)),
        ("green", (0, 255, 0)),
        ("blue", (0, 0, 255)),
        ("yellow", (255, 255, 0)),
        ("cyan", (0, 255, 255)),
        ("magenta", (255, 0, 255)),
    ],
)
def test_colour_bars(name, rgb):
    bar = np.full((100, 100, 3), rgb, np.uint8)
    full = Nv12Converter().convert(frame_of("rgb8", bar, 100, 100))
    limited = Nv12Converter(nv12_range="limited").convert(frame_of("rgb8", bar, 100, 100))
    planes = reference.rgb_to_yuv(np.array(rgb))
    for result, (y, u, v) in ((full, planes), (limited, reference.to_limited(*planes))):
        assert np.abs(result[:224] - np.clip(y, 0, 255)).max() <= 1
        chroma = result[224:].reshape(-1, 2)
        assert np.abs(chroma - np.clip([u, v], 0, 255)).max() <= 1
    exact = {"white": (255, 235), "black": (0, 16)}.get(name)
    if exact:
        for result, y in zip((full, limited), exact, strict=True):
            assert np.all(result[:224] == y)
            assert np.all(result[224:] == 128)


@pytest.mark.parametrize(("nv12_range", "grey"), [("full", 127), ("limited", 125)])
@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "nv12", "yuv422", "bayer_rggb8"])
def test_letterbox_bars_are_grey(encoding, nv12_range, grey):
    width, height = 400, 200
    channels = PIXEL_FORMATS[encoding].channels
    black = np.zeros((height * 3 // 2, width * channels), np.uint8)
    out = np.full((336, 224), 77, np.uint8)
    converter = Nv12Converter(fit="letterbox", nv12_range=nv12_range)
    converter.convert_into(frame_of(encoding, black, width, height), Nv12Planes.of(out))
    assert np.all(out[:56] == grey)
    assert np.all(out[168:224] == grey)
    assert not np.any(out[56:168] == grey)
    assert np.all(out[224:252] == 128)
    assert np.all(out[308:] == 128)


def test_extreme_yuv_saturates():
    """Limited-range samples below black and above white must not wrap around."""
    y = np.zeros((64, 64), np.uint8)
    y[:, 32:] = 255
    u, v = np.zeros((64, 32), np.uint8), np.full((64, 32), 255, np.uint8)
    result = Nv12Converter(fit="stretch").convert(packed_frame("yuv422", y, u, v))
    assert np.all(result[:224, :100] == 0)
    assert np.all(result[:224, 124:] == 255)
    assert np.all(result[224:].reshape(-1, 2) == [0, 255])


# Antialiasing


def noise_frame(encoding, width, height):
    """A frame of noise, and its Y, U, V sampled at given places by a given function."""
    random = np.random.default_rng(3)
    channels = random.integers(0, 256, (3, height, width), np.uint8)
    if encoding in COLOUR:
        rgb = np.moveaxis(channels, 0, -1)
        frame = frame_of(encoding, COLOUR[encoding](rgb), width, height)
        return frame, lambda *arguments: reference.sampled_rgb(rgb, *arguments)
    y, u, v = channels
    if encoding in ("mono8", "mono16"):
        samples = y if encoding == "mono8" else y.astype("<u2") * 256 + u
        grey = np.full_like(y, 128)
        frame = frame_of(encoding, samples, width, height)
        return frame, lambda *arguments: reference.sampled_yuv(y, grey, grey, *arguments)
    down = 2 if encoding in ("nv12", "nv21") else 1
    u, v = u[::down, ::2], v[::down, ::2]
    frame = (nv_frame if down == 2 else packed_frame)(encoding, y, u, v)
    return frame, lambda *arguments: reference.sampled_yuv(y, u, v, *arguments)


@both_samplings
@pytest.mark.parametrize(
    "size", [(672, 560), (448, 448), (896, 200), (200, 896), (448, 1400)], ids=str
)
@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "mono16", "nv12", "nv21", "yuv422"])
def test_every_pixel_counts_as_it_should(encoding, size, antialias):
    """Noise tells samples apart that a smooth picture does not; stretched, the phase is exact."""
    frame, sampled = noise_frame(encoding, *size)
    where = reference.grid("stretch", *size, 224, 224)
    converter = Nv12Converter(fit="stretch", input_range="full", antialias=antialias)
    assert_close(
        converter.convert(frame), expected(sampled(where, SAMPLING[antialias]), where), 2.6
    )


@pytest.mark.parametrize(
    ("fit", "size", "stride"),
    [
        ("crop", (640, 480), 1),
        ("crop", (1280, 720), 1),
        ("crop", (1920, 1080), 2),
        ("crop", (3840, 2160), 4),
        # Samples begin at the picture's edge, where the middle of two rows is not a row.
        ("stretch", (1920, 1080), 1),
        ("letterbox", (1920, 1080), 3),
    ],
)
def test_only_as_many_rows_are_read_as_are_needed(fit, size, stride):
    """Noise in the rows between does not show; in the rows that are read it does."""
    y = fit_axes(fit, size, (224, 224), 0.95, None)[1]
    window = Window.of(y, antialias=True, may_stride=True)
    assert window.stride == stride
    image = np.full(size[::-1], 100, np.uint8)
    converter = Nv12Converter(fit=fit)
    flat = converter.convert(frame_of("mono8", image, *size))
    read = np.zeros(size[1], bool)
    read[window.part] = True
    noise = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    between = np.where(read[:, np.newaxis], image, noise)
    assert np.array_equal(converter.convert(frame_of("mono8", between, *size)), flat)
    used = np.where(read[:, np.newaxis], noise, image)
    assert not np.array_equal(converter.convert(frame_of("mono8", used, *size)), flat)


@pytest.mark.parametrize("encoding", ["bgr8", "nv12", "yuv422_yuy2"])
def test_antialiasing_comes_near_a_bicubic_picture(encoding):
    width, height = 1920, 1080
    rgb = reference.detailed_picture(width, height)
    y, u, v = (
        np.rint(np.clip(each, 0, 255)).astype(np.uint8) for each in reference.rgb_to_yuv(rgb)
    )
    if encoding == "bgr8":
        frame = frame_of(encoding, rgb[..., ::-1], width, height)
    elif encoding == "nv12":
        frame = nv_frame(encoding, y, u[::2, ::2], v[::2, ::2])
    else:
        frame = packed_frame(encoding, y, u[:, ::2], v[:, ::2])
    where = reference.grid("crop", width, height, 224, 224)
    wanted = reference.bicubic(reference.rgb_to_yuv(rgb)[0], *where[:2])

    def psnr(**options):
        converter = Nv12Converter(input_range="full", **options)
        error = converter.convert(frame)[:224] - wanted
        return 10 * np.log10(255**2 / np.mean(error**2))

    # Measured: 37.8 and 28.6 dB for Y.
    assert psnr() > 36.8
    assert psnr() > psnr(antialias=False) + 8


# Memory


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("encoding", PIXEL_FORMATS)
def test_memory_is_set_up_once(encoding, antialias):
    width, height = 1280, 720
    rows = height * 3 // 2 if PIXEL_FORMATS[encoding].kind == "yuv420" else height
    frame = frame_of(
        encoding,
        np.zeros((rows, width * PIXEL_FORMATS[encoding].channels), np.uint8),
        width,
        height,
    )
    out = Nv12Planes.of(np.empty((336, 224), np.uint8))
    converter = Nv12Converter(antialias=antialias)
    converter.convert_into(frame, out)
    tracemalloc.start()
    converter.convert_into(frame, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000


@pytest.mark.numpy2
@pytest.mark.parametrize("tail", ["whole", "short", "longer"])
@pytest.mark.parametrize("encoding", PIXEL_FORMATS)
def test_padded_rows(encoding, tail):
    """The padding holds noise, and the last row may come without its padding."""
    width, height, padding = 100, 60, 29
    row_bytes = width * PIXEL_FORMATS[encoding].channels
    rows = height * 3 // 2 if PIXEL_FORMATS[encoding].kind == "yuv420" else height
    random = np.random.default_rng(1)
    tight = random.integers(0, 256, (rows, row_bytes), np.uint8)
    noise = random.integers(0, 256, (rows, padding), np.uint8)
    data = np.concatenate([tight, noise], axis=1).reshape(-1)
    data = {"whole": data, "short": data[:-padding], "longer": np.append(data, data)}[tail]
    padded = frame_of(encoding, data, width, height, row_bytes + padding)
    result = Nv12Converter().convert(padded)
    assert np.array_equal(
        result, Nv12Converter().convert(frame_of(encoding, tight, width, height))
    )


@pytest.mark.parametrize("encoding", PIXEL_FORMATS)
def test_step_zero_means_no_padding(encoding):
    random = np.random.default_rng(2)
    rows = 90 if PIXEL_FORMATS[encoding].kind == "yuv420" else 60
    data = random.integers(0, 256, (rows, 100 * PIXEL_FORMATS[encoding].channels), np.uint8)
    converter = Nv12Converter()
    result = converter.convert(frame_of(encoding, data, 100, 60, 0))
    assert np.array_equal(result, converter.convert(frame_of(encoding, data, 100, 60)))
    with pytest.raises(FrameError, match="step is 0") as caught:
        converter.convert(frame_of(encoding, np.append(data, data), 100, 60, 0))
    assert caught.value.fault == "step"


@pytest.mark.numpy2
@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "nv12", "nv21", "yuv422", "bayer_rggb8"])
@pytest.mark.parametrize("fit", FITS)
def test_writes_between_the_padding_of_rows_and_never_into_the_frame(encoding, fit):
    channels = PIXEL_FORMATS[encoding].channels
    data = np.random.RandomState(0).randint(0, 256, (360, 320 * channels), np.uint8)
    frame = frame_of(encoding, data, 320, 240)
    before = frame.data.copy()
    y, uv = np.full((224, 256), 77, np.uint8), np.full((112, 256), 78, np.uint8)
    converter = Nv12Converter(fit=fit, input_range="limited")
    converter.convert_into(frame, Nv12Planes.strided(y, uv, 224))
    dense = converter.convert(frame)
    assert np.array_equal(y[:, :224], dense[:224])
    assert np.array_equal(uv[:, :224], dense[224:])
    assert np.all(y[:, 224:] == 77)
    assert np.all(uv[:, 224:] == 78)
    assert np.array_equal(frame.data, before)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((222, 224), np.uint8),
        np.empty((336, 224), np.int8),
        np.empty((336, 448), np.uint8)[:, ::2],
    ],
    ids=["shape", "dtype", "layout"],
)
def test_wrong_out_is_refused(out):
    frame = frame_of("mono8", np.zeros((9, 9)), 9, 9)
    with pytest.raises(ValueError, match="out must be"):
        Nv12Converter().convert_into(frame, Nv12Planes.of(out))


def test_one_converter_takes_any_sequence_of_frames():
    """More sizes than are remembered, and each twice: the same as fresh converters."""
    converter = Nv12Converter(fit="letterbox")
    sizes = [(width, 2 * width % 301 + 20) for width in range(50, 250, 17)]
    frames = [frame_of("rgb8", reference.picture(*size), *size) for size in sizes]
    for frame in frames + frames:
        fresh = Nv12Converter(fit="letterbox").convert(frame)
        assert np.array_equal(converter.convert(frame), fresh)


# Compressed


@pytest.fixture(params=["libturbojpeg", "OpenCV"])
def jpeg_by(request, monkeypatch):
    """Which library decodes plain JPEGs."""
    if request.param == "OpenCV":
        monkeypatch.setattr(turbojpeg, "load", lambda: None)
    elif turbojpeg.load() is None:
        pytest.skip("libturbojpeg is not installed")
    return request.param


@pytest.mark.numpy2
@pytest.mark.parametrize("fit", FITS)
def test_png_is_the_same_as_raw(fit):
    rgb = reference.picture(333, 222)
    raw = Nv12Converter(fit=fit).convert(frame_of("rgb8", rgb, 333, 222))
    bgr = rgb[..., ::-1]
    alpha = np.random.default_rng(0).integers(0, 256, rgb.shape[:2], np.uint8)
    for pixels in (bgr, np.dstack([bgr, alpha]), bgr.astype(np.uint16) * 256 + 200):
        frame = file_frame("png", pixels)
        assert np.array_equal(Nv12Converter(fit=fit).convert(frame), raw)


def test_grey_files(jpeg_by):
    grey = reference.picture(300, 200)[..., 1]
    raw = Nv12Converter().convert(frame_of("mono8", grey, 300, 200))
    # Rounding Y of three equal channels may differ by a level from the channel itself.
    png = Nv12Converter().convert(file_frame("png", grey))
    assert np.abs(png.astype(int) - raw).max() <= 1
    jpeg = Nv12Converter().convert(file_frame("jpeg", grey, cv2.IMWRITE_JPEG_QUALITY, 100))
    assert np.abs(jpeg.astype(int) - raw).max() <= 3


@both_samplings
@pytest.mark.parametrize("roi", [None, Roi(240, 160, 500, 480), Roi(3, 1, 500, 480)], ids=str)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "size", [(760, 660), (943, 942), (999, 1001), (1999, 1881), (1883, 1883)], ids=str
)
def test_jpeg_reduced_or_not(size, fit, roi, antialias, jpeg_by):
    """The sizes reach every reduction, partial blocks at the edges, and a scale close to 1."""
    rgb = reference.picture(*size, blob=100)
    seen = region(rgb, roi or Roi(0, 0, *size))
    where = reference.grid(fit, seen.shape[1], seen.shape[0], 224, 224)
    frame = file_frame("jpeg", rgb[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 100)
    result = Nv12Converter(fit=fit, roi=roi, antialias=antialias).convert(frame)
    planes = reference.sampled_rgb(seen, where, SAMPLING[antialias])
    # JPEG rounds three times more, and a reduced pixel is a mean, which rounds off the picture's
    # corners; libturbojpeg's chroma is one of blocks twice as large. Half a reduced pixel off, the
    # mean error would be above 1.
    assert_close(
        result, expected(planes, where), *((9, 0.5) if jpeg_by == "OpenCV" else (10, 0.6))
    )


def test_exif_turns_a_photo_upright(jpeg_by):
    rgb = reference.picture(1200, 700, blob=100)
    jpeg = file_frame("jpeg", rgb[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 100).data
    # Orientation 6: the camera's top is the picture's right side.
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(tiff)) + b"Exif\0\0" + tiff
    turned = np.frombuffer(jpeg[:2].tobytes() + exif + jpeg[2:].tobytes(), np.uint8)
    upright = np.rot90(rgb, -1)
    where = reference.grid("crop", 700, 1200, 224, 224)
    wanted = expected(reference.sampled_rgb(upright, where, reference.antialiased), where)
    assert_close(Nv12Converter().convert(Frame(Header(), "jpeg", turned)), wanted, 9, 0.5)


def test_content_decides_between_jpeg_and_png():
    png = file_frame("png", reference.picture(64, 64))
    mislabelled = Frame(Header(), "jpeg", png.data)
    assert np.array_equal(Nv12Converter().convert(mislabelled), Nv12Converter().convert(png))


@pytest.mark.parametrize("padding", [1, 4094, 4095, 4096, 5000])
def test_padding_after_a_jpeg_is_ignored(padding, jpeg_by):
    jpeg = file_frame("jpeg", reference.picture(64, 64))
    padded = Frame(Header(), "jpeg", np.append(jpeg.data, np.zeros(padding, np.uint8)))
    assert np.array_equal(Nv12Converter().convert(padded), Nv12Converter().convert(jpeg))


def test_fill_bytes_between_jpeg_segments(jpeg_by):
    jpeg = file_frame("jpeg", reference.picture(64, 64))
    raw = jpeg.data.tobytes()
    at = raw.index(b"\xff\xdb")
    filled = np.frombuffer(raw[:at] + b"\xff\xff" + raw[at:], np.uint8)
    result = Nv12Converter().convert(Frame(Header(), "jpeg", filled))
    assert np.array_equal(result, Nv12Converter().convert(jpeg))


def png_of_size(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)
    return start + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IEND\xaeB`\x82"


def jpeg_of_size(width, height):
    jpeg = bytearray(file_frame("jpeg", np.zeros((16, 16, 3), np.uint8)).data.tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(jpeg)


JPEG = file_frame("jpeg", reference.picture(320, 240)).data.tobytes()
PNG = file_frame("png", reference.picture(320, 240)).data.tobytes()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "decode"),
        (b"GIF89a" + bytes(100), "decode"),
        (JPEG[:3], "decode"),
        (JPEG[:100], "decode"),
        (JPEG[:-700], "decode"),
        (PNG[:20], "decode"),
        (PNG[:-700], "decode"),
        (b"\xff\xd8\xff\xd9", "decode"),
        (b"\xff\xd8\xff\xd9" + bytes(20), "decode"),
        (jpeg_of_size(0, 16), "decode"),
        (jpeg_of_size(60000, 60000), "size"),
        (png_of_size(60000, 60000), "size"),
        (png_of_size(0, 5), "decode"),
        (png_of_size(5, 5), "decode"),
        (PNG[:40] + bytes(len(PNG) - 60) + PNG[-20:], "decode"),
    ],
)
def test_broken_files(data, fault, jpeg_by):
    frame = Frame(Header(), "jpeg", np.frombuffer(data, np.uint8))
    with pytest.raises(FrameError) as caught:
        Nv12Converter().convert(frame)
    assert caught.value.fault == fault


def test_the_end_of_a_thumbnail_is_not_that_of_the_file():
    data = JPEG[:2] + b"\xff\xe1\x00\x06\xff\xd9\xff\xd9" + JPEG[2:]
    check(Frame(Header(), "jpeg", np.frombuffer(data, np.uint8)))
    with pytest.raises(FrameError, match="cut off"):
        check(Frame(Header(), "jpeg", np.frombuffer(data[:-700], np.uint8)))


# Faults


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"encoding": "32FC1"}, "encoding"),
        ({"encoding": ""}, "encoding"),
        ({"width": 0}, "size"),
        ({"height": 0}, "size"),
        ({"width": -4}, "size"),
        ({"height": 2**31}, "size"),
        ({"width": 2**32 - 1, "step": 2**32 - 1}, "size"),
        ({"encoding": "nv12", "width": 15}, "size"),
        ({"encoding": "nv21", "height": 15}, "size"),
        ({"encoding": "yuv422", "width": 15}, "size"),
        ({"encoding": "bayer_rggb8", "width": 3}, "size"),
        ({"step": 47}, "step"),
        ({"step": -1}, "step"),
        ({"encoding": "mono16", "step": 31}, "step"),
        ({"step": 0}, "step"),
        ({"height": 17}, "data"),
        ({"step": 2**32 - 1}, "data"),
        ({"height": 65535}, "data"),
        ({"width": 17, "step": 0}, "data"),
    ],
    ids=str,
)
def test_faults(fields, fault):
    values = {"encoding": "bgr8", "height": 16, "width": 16, "step": 48} | fields
    data = np.zeros(16 * 48 + 3 * (values["step"] == 0), np.uint8)
    frame = Frame(Header(), data=data, **values)
    for function in (check, Nv12Converter().convert):
        with pytest.raises(FrameError) as caught:
            function(frame)
        assert caught.value.fault == fault


def test_unknown_encoding_names_the_known_ones():
    frame = Frame(Header(), "yuv444", np.zeros(0, np.uint8), 1, 1, 3)
    with pytest.raises(FrameError) as caught:
        Nv12Converter().convert(frame)
    assert all(name in str(caught.value) for name in (*PIXEL_FORMATS, *COMPRESSED))


def test_region_outside_the_image():
    frame = frame_of("mono8", np.zeros((48, 64)), 64, 48)
    for roi in (Roi(1, 0, 64, 48), Roi(0, 1, 64, 48), Roi(100, 100, 5, 5)):
        with pytest.raises(FrameError, match="64x48") as caught:
            Nv12Converter(roi=roi).convert(frame)
        assert caught.value.fault == "roi"


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 223},
        {"height": 0},
        {"fit": "fill"},
        {"crop_pct": 0},
        {"crop_pct": 1.1},
        {"roi": Roi(-1, 0, 5, 5)},
        {"roi": Roi(0, 0, 0, 5)},
        {"nv12_range": "auto"},
        {"input_range": "video"},
    ],
    ids=str,
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        Nv12Converter(**arguments)


some_frame = st.builds(
    Frame,
    header=st.just(Header()),
    encoding=st.sampled_from([*PIXEL_FORMATS, *COMPRESSED, "32FC1"]),
    data=st.one_of(
        st.binary(max_size=400),
        st.integers(0, 20000).map(bytes),
        st.tuples(st.sampled_from([JPEG, PNG]), st.integers(2, 3000), st.binary(max_size=9)).map(
            lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]
        ),
    ).map(lambda data: np.frombuffer(data, np.uint8)),
    height=st.one_of(st.integers(-1, 70), st.integers(-(2**31), 2**32)),
    width=st.one_of(st.integers(-1, 70), st.integers(-(2**31), 2**32)),
    step=st.one_of(st.integers(-1, 300), st.just(0), st.integers(-(2**31), 2**32)),
    is_bigendian=st.booleans(),
)
fuzzed_converters = [
    Nv12Converter(32, 16, fit=fit, roi=roi, nv12_range="limited")
    for fit in FITS
    for roi in (None, Roi(1, 0, 3, 5))
]


@given(some_frame, st.sampled_from(fuzzed_converters))
@settings(max_examples=1500, deadline=None)
def test_any_frame_gives_a_picture_or_a_frame_error(frame, converter):
    try:
        assert converter.convert(frame).shape == (24, 32)
    except FrameError as error:
        assert str(error)
    else:
        check(frame)
