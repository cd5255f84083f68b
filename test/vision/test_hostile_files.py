"""JPEG and PNG files that would cost more than their size says; and honest ones, which pass."""

import io
import json
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import hostile_files
import numpy as np
import pytest
import reference
from hostile_files import TRAPS, chunk, fill_bytes, jpeg, png, scans, segment, with_size, zeros

from efv2_ros.pictures.annotate import to_bgr
from efv2_ros.vision.compressed import MAX_PIXELS, decode, read_header
from efv2_ros.vision.frame import Frame, FrameError, Header
from efv2_ros.vision.nv12 import Nv12Converter, check

MALFORMED_MESSAGES = Path(hostile_files.__file__).with_name("malformed_messages.py")


def array(data):
    return np.frombuffer(data, np.uint8)


def frame_of(data):
    return Frame(Header(), "jpeg", array(data))


def fault(data, **options):
    with pytest.raises(FrameError) as caught:
        read_header(array(data), **options)
    return caught.value.fault


# Traps


LARGE_TRAPS = {"jpeg: 20 MB of fill bytes": lambda: fill_bytes(20_000_000)}
"""Those that are too large for `malformed_messages` to make thousands of."""


@pytest.mark.parametrize(
    "make", [*TRAPS.values(), *LARGE_TRAPS.values()], ids=[*TRAPS, *LARGE_TRAPS]
)
def test_traps_cost_next_to_nothing(make):
    """In a process of its own, whose CPU time and memory are its own as well.

    Without the checks, most of them take 0.2 to 21 s or 0.1 to 4.2 GB; with them, at most 0.05 s.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            frame, converter = frame_of(make()), Nv12Converter()
            converter.convert(frame_of(jpeg()))
            before = resource.getrusage(resource.RUSAGE_SELF)
            try:
                check(frame)
                converter.convert(frame)
            except FrameError:
                pass
            after = resource.getrusage(resource.RUSAGE_SELF)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            grown = after.ru_maxrss - before.ru_maxrss
            status = 2 * (seconds > 0.2) + 4 * (grown > 60_000)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


REFUSED = {
    "png: text chunk of 4 GB": "cut off",
    "png: data chunk of 4 GB": "cut off",
    "png: palette of 4 GB": "cut off",
    "png: EXIF": "65535 entries",
    "png: EXIF of 7 MB": "EXIF data of 7000000 bytes",
    "png: no data for its size": "cut off",
    "png: more data than its size": "more than its pixels",
    "png: floods of chunks": "small chunks",
    "png: floods of data chunks": "small chunks",
    "jpeg: thousands of scans": "scans visit the picture too often",
    "jpeg: scans of a large image": "scans visit the picture too often",
    "jpeg: scans of a tiny image": "scans visit the picture too often",
    "jpeg: restarts": "scans visit the picture too often",
    "jpeg: no data for its size": "cannot hold 5000x5000",
    "jpeg: no data for its size, in scans": "cannot hold 5000x5000",
    "jpeg: no data for its size, and comments": "cannot hold 5000x5000",
    "jpeg: scans without means, and comments": "coefficients that it cannot have",
    "jpeg: EXIF": "5400 entries",
    "jpeg: floods of segments": "segments",
    "jpeg: 12 bits": "12 bits",
    "jpeg: arithmetic coding": "arithmetic",
    "jpeg: lossless": "lossless",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name):
    with pytest.raises(FrameError, match=REFUSED[name]) as caught:
        Nv12Converter().convert(frame_of(TRAPS[name]()))
    assert caught.value.fault == "decode"


@pytest.mark.parametrize(
    "name",
    ["png: inflating texts", "png: inflating international texts", "png: inflating profile",
     "png: suggested palettes", "png: animation", "jpeg: fill bytes"],
)  # fmt: skip
def test_what_nobody_needs_is_left_out(name):
    assert to_bgr(frame_of(TRAPS[name]())).size


# PNG


def changed(data, at, new):
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(10, 10, 4, 2), "colour type 2 with 4 bits"),
        (png(10, 10, 16, 3), "colour type 3 with 16 bits"),
        (png(10, 10, 8, 0, 2), "interlace"),
        (hostile_files.PNG_SIGNATURE + chunk(b"tEXt") + png()[8:], "begin with its header"),
        (png(before=chunk(b"IHDR", bytes(13))), "IHDR"),
        (png(before=chunk(b"PLTE", bytes(4))), "palette"),
        (png(before=chunk(b"PLTE", bytes(771))), "palette"),
        (png(before=chunk(b"PLTE", bytes(3)) * 2), "palette"),
        (png(after=chunk(b"PLTE", bytes(3))), "palette"),
        (png(10, 10, 8, 3), "data are not where"),
        (png(after=chunk(b"tEXt") + chunk(b"IDAT")), "data are not where"),
        (png(before=chunk(b"CgBI", bytes(4))), "CgBI"),
        (png(before=chunk(b"eXIf", b"II*\0") * 2), "EXIF data twice"),
        (png()[:8] + png()[8:33] + chunk(b"IEND"), "no data"),
        (png(0, 5, data=zeros(50)), "0x5"),
    ],
)  # fmt: skip
def test_rules_of_png(data, words):
    with pytest.raises(FrameError, match=words) as caught:
        read_header(array(data))
    assert caught.value.fault == "decode"


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("depth", "colour"), [(1, 0), (16, 0), (8, 2), (16, 2), (4, 3), (16, 6)])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (997, 1003)], ids=str)
def test_data_of_all_layouts_end_with_the_picture(size, depth, colour, interlaced):
    """Noise does not deflate, so that the larger ones are inflated here."""
    black = hostile_files.rows(*size, depth, colour, interlaced)
    random = np.random.default_rng(0)
    raw = bytearray(hostile_files.inflated(black))
    raw[:] = random.integers(0, 256, len(raw), np.uint8).tobytes()
    for start in hostile_files.row_starts(*size, depth, colour, interlaced)[:-1]:
        raw[start] = random.integers(0, 5)  # the row's filter
    palette = chunk(b"PLTE", bytes(range(48))) if colour == 3 else b""

    def file(data):
        deflated = hostile_files.deflated(data)
        return png(*size, depth, colour, interlaced, before=palette, data=deflated)

    honest = array(file(raw))
    assert np.array_equal(
        decode(honest, read_header(honest)), cv2.imdecode(honest, cv2.IMREAD_COLOR)
    )
    if honest.size > 60_000:
        with pytest.raises(FrameError, match="more than its pixels"):
            to_bgr(frame_of(file(raw + bytes(1))))
        with pytest.raises(FrameError, match="cannot be decoded"):
            to_bgr(frame_of(file(raw[: len(raw) // 2])))


def test_a_large_picture_is_checked_without_being_kept():
    """Its data are inflated twice, and it is the same."""
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    data = cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].reshape(-1)
    assert np.array_equal(decode(data, read_header(data)), noise)
    with pytest.raises(FrameError, match="more than its pixels"):
        to_bgr(frame_of(png(4000, 3000, data=zeros(200_000_000))))


@pytest.mark.parametrize("size", [(40, 30), (400, 300)], ids=str)
def test_damaged_data_are_an_error(size):
    """The small one's are left to OpenCV; the large one's are inflated here."""
    layout = *size, 8, 2
    noise = np.random.default_rng(0)
    rows = noise.integers(0, 256, hostile_files.row_starts(*layout)[-1], np.uint8)
    rows[list(hostile_files.row_starts(*layout)[:-1])] = 0  # no filter
    data = hostile_files.deflated(rows.tobytes())
    whole = png(*layout, data=data)
    to_bgr(frame_of(whole))
    middle = len(data) // 2
    for damaged in (
        changed(whole, whole.index(data) + middle, bytes([data[middle] ^ 1])),  # else a valid file
        png(*layout, data=changed(data, 2, b"\xff" * 9)),  # no deflated data
        png(*layout, data=changed(data, len(data) - 4, bytes(4))),  # a wrong checksum
        png(*layout, data=data[:-1000]),
    ):
        with pytest.raises(FrameError, match=r"cannot be decoded|inflated|checksum|too early"):
            to_bgr(frame_of(damaged))


# JPEG


def test_scans_in_their_order_pass():
    read_header(array(in_scans(MEANS, (1, 8, 2), (9, 63, 2), (1, 63, 0x21), (0, 0, 0x10))))


def test_scans_as_encoders_write_them_pass():
    rgb = reference.picture(320, 240)
    for restart in (0, 1, 5):
        parameters = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
        data = cv2.imencode(".jpg", rgb, parameters)[1].reshape(-1)
        assert read_header(data)[:3] == (True, 320, 240)
    # What libjpeg's script for unknown colours has: four passes over the AC coefficients.
    assert read_header(array(scans(320, 240, 16, components=4)))


def test_the_limit_on_scans_counts_visits_to_coefficients():
    """8 visits each; a pass counts 8 of 64 coefficients for a block, and those it refines."""
    first = {"components": 1, "refining": False}
    read_header(array(scans(320, 240, 63, **first)))
    assert fault(scans(320, 240, 64, **first)) == "decode"
    read_header(array(scans(320, 240, 7, components=1)))
    assert fault(scans(320, 240, 8, components=1)) == "decode"
    read_header(array(scans(320, 240, 11, restart=1, **first)))
    assert fault(scans(320, 240, 12, restart=1, **first)) == "decode"


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("shape", [(1080, 1920), (1080, 1920, 3)], ids=str)
@pytest.mark.parametrize("progressive", [0, 1])
def test_images_of_one_colour_have_enough_data(colour, shape, progressive):
    """With tables of their own, they have the fewest bits that there can be."""
    parameters = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    data = cv2.imencode(".jpg", np.full(shape, colour, np.uint8), parameters)[1].reshape(-1)
    assert read_header(data)[1:3] == (1920, 1080)
    assert len(np.unique(decode(data, read_header(data)))) == 1


def frame_header(marker=0xC0, components=b"\x01\x11\0", precision=8, count=None):
    count = len(components) // 3 if count is None else count
    return segment(marker, struct.pack(">BHHB", precision, 8, 8, count) + components)


def around(*segments):
    return b"\xff\xd8" + b"".join(segments) + bytes(50) + b"\xff\xd9"


SCAN = segment(0xDA, b"\x01\x01\0\0\x3f\0")


def in_scans(*scans):
    """A progressive JPEG of 8x8 pixels; each scan as first and last coefficient, Ah and Al."""
    return around(
        frame_header(0xC2), *(segment(0xDA, b"\x01\x01\0" + bytes(scan)) for scan in scans)
    )


MEANS = (0, 0, 0x01)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (around(frame_header(), frame_header(), SCAN), "two frame headers"),
        (around(SCAN), "no frame header"),
        (around(frame_header()), "cut off"),
        (around(frame_header(components=b"\x01\x11\0\x02\x11\0"), SCAN), "2 components"),
        (around(frame_header(components=b"\x01\x11\0" * 3), SCAN), "not told apart"),
        (around(frame_header(components=b"\x01\x15\0"), SCAN), "sampling factors"),
        (around(frame_header(components=b"\x01\x10\0"), SCAN), "sampling factors"),
        (around(frame_header(count=9), SCAN), "9 components"),
        (around(segment(0xC0, b"\x08"), SCAN), "too short"),
        (around(frame_header(), segment(0xDA)), "scan header"),
        (around(frame_header(), segment(0xDA, b"\x02\x01\0\x01\0\0\x3f\0")), "does not have"),
        (around(frame_header(), segment(0xDA, b"\x01\x07\0\0\x3f\0")), "does not have"),
        (in_scans((1, 63, 0)), "cannot have"),
        (in_scans(MEANS, (1, 64, 0)), "cannot have"),
        (in_scans(MEANS, (9, 8, 0)), "cannot have"),
        (in_scans((0, 0, 0x10)), "do not follow"),
        (in_scans(MEANS, (0, 0, 0x21)), "do not follow"),
        (in_scans(MEANS, (1, 8, 2), (1, 9, 0x21)), "do not follow"),
        (around(frame_header(), b"\xff\xe0\0\1"), "no length"),
        (b"\xff\xd8" + frame_header() + b"\xff\xe0\xff\xff", "cut off"),
        (b"\xff\xd8" + frame_header() + b"\xff\xe0\0", "cut off"),
    ],
)  # fmt: skip
def test_rules_of_jpeg(data, words):
    with pytest.raises(FrameError, match=words) as caught:
        read_header(array(data))
    assert caught.value.fault == "decode"


def test_a_scan_behind_stray_bytes_counts_too():
    """libjpeg skips bytes between segments, so that the walk must not end there."""
    data = scans(320, 240, 30, components=1)
    at = data.index(b"\xff\xda")
    assert fault(data[:at] + b"\0\0\0" + data[at:]) == "decode"


def test_a_second_scan_of_a_baseline_jpeg_is_not_decoded_over_and_over():
    """libjpeg decodes the first, of all components, and then stops."""
    data = jpeg(1920, 1080)
    repeated = data[data.index(b"\xff\xda") : -2]
    start = time.process_time()
    to_bgr(frame_of(data[:-2] + repeated * 20 + b"\xff\xd9"))
    once = time.process_time()
    to_bgr(frame_of(data))
    assert once - start < 5 * (time.process_time() - once) + 0.1


# Size


@pytest.mark.parametrize("make", [png, jpeg])
def test_the_limit_on_the_size(make):
    frame = frame_of(make(50, 40))

    def convert(frame, max_pixels):
        return Nv12Converter(max_pixels=max_pixels).convert(frame)

    for function in (check, convert, to_bgr):
        function(frame, 2000)
        with pytest.raises(FrameError, match=r"50x40.*1999") as caught:
            function(frame, 1999)
        assert caught.value.fault == "size"


def test_the_default_limit():
    sides = 6000, 4166
    assert sides[0] * sides[1] <= MAX_PIXELS
    read_header(array(png(*sides, 1, 0)))
    assert fault(png(6000, 4167, 1, 0, data=zeros(1000))) == "size"
    assert fault(with_size(jpeg(), 6000, 4167)) == "size"


@pytest.mark.parametrize(
    "make",
    [
        lambda: scans(6000, 4000, 4, components=4, refining=False),
        lambda: png(6000, 4000, 16, 6, 1),
        lambda: jpeg(6000, 4000),
    ],
    ids=["progressive CMYK", "interlaced, 16 bits, alpha", "baseline"],
)
def test_the_largest_files_take_less_than_300_mb(make):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            frame = frame_of(make())
            Path("/proc/self/clear_refs").write_text("5")
            before = peak_kb()
            to_bgr(frame)
            status = 2 * (peak_kb() - before > 300_000)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def peak_kb():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


# Honest files


def honest_pngs():
    image = pytest.importorskip("PIL.Image")
    from PIL.PngImagePlugin import PngInfo

    rgb = image.fromarray(reference.picture(333, 222))
    info = PngInfo()
    info.add_text("Comment", "text" * 999, zip=True)
    info.add_itxt("Title", "text" * 999, zip=True)
    info.add_text("Author", "text")
    exif = image.Exif()
    exif[0x0112] = 6
    options = {"pnginfo": info, "icc_profile": b"profile" * 999, "dpi": (72, 72), "exif": exif}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        for more in ({}, {"optimize": True}, options):
            file = io.BytesIO()
            (rgb.convert("I").convert(mode) if mode == "I;16" else rgb.convert(mode)).save(
                file, "PNG", **more
            )
            yield file.getvalue()
    file = io.BytesIO()
    rgb.convert("P").save(file, "PNG", transparency=3)
    yield file.getvalue()
    file = io.BytesIO()
    rgb.save(file, "PNG", save_all=True, append_images=[rgb.rotate(90)], duration=100)
    yield file.getvalue()


def honest_jpegs():
    image = pytest.importorskip("PIL.Image")
    rgb = image.fromarray(reference.picture(333, 222))
    exif = image.Exif()
    exif[0x0112], exif[0x010F], exif[0x010E] = 6, "Maker", "text" * 999
    for mode in ("L", "RGB", "CMYK"):
        for more in (
            {}, {"optimize": True}, {"progressive": True}, {"quality": 100, "subsampling": 0},
            {"progressive": True, "subsampling": 0, "restart_marker_blocks": 1},
            {"icc_profile": b"profile" * 99_999, "exif": exif, "comment": b"text"},
        ):  # fmt: skip
            file = io.BytesIO()
            rgb.convert(mode).save(file, "JPEG", **more)
            yield file.getvalue()


@pytest.mark.parametrize("count", [1, 2, 30, 31, 32, 33, 63, 64, 5000])
@pytest.mark.parametrize("before", [b"", b"\0", b"\xff\0", b"\xff\xd0"])
def test_fill_bytes_may_come_before_every_marker(count, before):
    data = jpeg()
    for at in (data.index(b"\xff\xc0"), data.index(b"\xff\xda")):
        filled = data[:at] + before + b"\xff" * count + data[at:]
        assert read_header(array(filled)) == read_header(array(data))
    assert fault(data[:2] + b"\xff" * count) == "decode"


@pytest.mark.parametrize("make", [honest_pngs, honest_jpegs])
def test_honest_files_look_as_ever(make):
    for data in make():
        header = read_header(array(data))
        wanted = cv2.imdecode(array(data), cv2.IMREAD_COLOR)
        assert np.array_equal(decode(array(data), header), wanted)


# Messages


def test_malformed_messages(tmp_path):
    """Some thousand of them; the script sends as many as you like."""
    out = tmp_path / "result.json"
    command = [sys.executable, MALFORMED_MESSAGES, "--count", "4000", "--seed", "7", "--out", out]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    result = json.loads(out.read_text())
    assert result["unexpected"] == []
    assert sum(result["outcomes"].values()) == 4000
    assert {"classified", "message", "encoding", "size", "step", "data", "decode"} <= set(
        result["outcomes"]
    )
    assert result["growth_mb"] < 300
    assert result["slowest"]["cpu_ms"] < 1000
