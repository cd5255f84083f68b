"""PNG, JPEG and TIFF files that cost a decoder more than their size says."""

import struct
import zlib

import cv2
import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2)]  # fmt: skip


# PNG


def chunk(kind, content=b"", length=None):
    """A PNG chunk; `length` is what it says of itself, if that is a lie."""
    length = len(content) if length is None else length
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", length) + kind + content + struct.pack(">I", checksum)


def ihdr(width, height, depth=8, colour=2, interlaced=0, compression=0, filtering=0):
    fields = width, height, depth, colour, compression, filtering, interlaced
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))


def zeros(count):
    """Deflated zero bytes: 1 for every 1030."""
    whole, rest = divmod(count, 1 << 20)
    deflate = zlib.compressobj(9)
    parts = [deflate.compress(bytes(1 << 20)) for _ in range(whole)]
    return b"".join([*parts, deflate.compress(bytes(rest)), deflate.flush()])


def deflated(data):
    return zlib.compress(bytes(data))


def inflated(data):
    return zlib.decompress(data)


def row_starts(width, height, depth=8, colour=2, interlaced=0):
    """Where each row of an uncompressed picture begins, and where the last ends."""
    starts = [0]
    for x, y, right, down in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns, lines = -(-(width - x) // right), -(-(height - y) // down)
        if columns > 0 and lines > 0:
            row = 1 + -(-columns * depth * CHANNELS[colour] // 8)
            starts += range(starts[-1] + row, starts[-1] + lines * row + 1, row)
    return starts


def rows(*layout):
    """The deflated bytes of a black picture; `layout` as in `ihdr`."""
    return zeros(row_starts(*layout)[-1])


def png(width=40, height=40, *more, before=b"", after=b"", data=None):
    """A black PNG; `more` as in `ihdr`, `before` and `after` are chunks beside its data."""
    content = rows(width, height, *more) if data is None else data
    return b"".join(
        [PNG_SIGNATURE, ihdr(width, height, *more), before, chunk(b"IDAT", content), after,
         chunk(b"IEND")]
    )  # fmt: skip


def lying_png(kind=b"tEXt", length=0xFFFFFFF0):
    return png(before=chunk(kind, b"a" * 10, length))


def text_bomb(kind=b"zTXt", copies=100, size=7_900_000):
    prefix = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind]
    return png(before=chunk(kind, prefix + zeros(size)) * copies)


def animation(width, height, depth=16, colour=6):
    """An APNG of two frames, for which OpenCV 4.11 keeps three pictures of all samples."""

    def frame(number):
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 1, 0, 0))

    before = chunk(b"acTL", struct.pack(">II", 2, 0)) + frame(0)
    after = frame(1) + chunk(b"fdAT", struct.pack(">I", 2) + rows(width, height, depth, colour))
    return png(width, height, depth, colour, before=before, after=after)


def exif(entries=65535, size=7_000_000, tag=0x010E):
    """A TIFF directory whose entries all have the same, long text."""
    body = struct.pack("<HHII", tag, 2, size - 16, 8) * entries
    head = b"II*\0" + struct.pack("<IH", 8, entries)
    return (head + body).ljust(size, b"\0")


def exif_bomb_png():
    return png(before=chunk(b"eXIf", exif(size=1_000_000)))


# JPEG


def segment(marker, content=b""):
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content


def jpeg(width=64, height=48, *parameters):
    """A JPEG of a real encoder."""
    ramp = np.arange(width * height * 3, dtype=np.uint32).astype(np.uint8)
    return cv2.imencode(".jpg", ramp.reshape(height, width, 3), parameters)[1].tobytes()


def behind_start(data, content):
    return data[:2] + content + data[2:]


def with_size(data, width, height):
    """Change what the frame header declares."""
    changed = bytearray(data)
    at = next(data.index(each) for each in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2") if each in data)
    changed[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(changed)


REFINING = bytes([0x0D, *(left_out << 4 | left_out - 1 for left_out in range(13, 0, -1))])
"""Ah and Al of scans that each send another bit of the same coefficients."""


def scans(
    width, height, count, *, components=3, refining=True, means=True, restart=0, last=63, sof=0xC2,
    precision=8,
):  # fmt: skip
    """A progressive JPEG of grey, whose scans all go over all coefficients and change nothing.

    Args:
        width: In pixels.
        height: In pixels.
        count: Scans after the first.
        components: 1 to 4.
        refining: Whether most scans refine what others sent: libjpeg visits each coefficient.
        means: Whether the first scan, of the DC coefficients, is there.
        restart: MCUs between restarts.
        last: Last coefficient of the scans.
        sof: Marker of the frame header.
        precision: Bits per sample.
    """
    names = range(1, components + 1)
    blocks = -(-width // 8) * -(-height // 8)

    def scan(which, first, last, approximation):
        content = bytes([len(which)]) + b"".join(bytes([each, 0]) for each in which)
        return segment(0xDA, content + bytes([first, last, approximation]))

    parts = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + bytes([1] * 64)),
        segment(
            sof,
            struct.pack(">BHHB", precision, height, width, components)
            + b"".join(bytes([each, 0x11, 0]) for each in names),
        ),
        segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\0"),  # DC: no difference
        # AC: 00 ends at least 16384 blocks, 01 is a single coefficient.
        segment(0xC4, b"\x10" + bytes([0, 2] + [0] * 14) + b"\xe0\x01"),
        segment(0xDD, struct.pack(">H", restart)),
    ]
    if means:
        parts += [scan(names, 0, 0, 0x0D), bytes(-(-blocks * components // 8))]
    for number in range(count):
        turn = number // components
        approximation = REFINING[turn] if refining and turn < len(REFINING) else 0
        parts += [scan([names[number % components]], 1, last, approximation)]
        parts += [bytes(2 * -(-blocks // 16384))]
    return b"".join([*parts, b"\xff\xd9"])


def exif_bomb_jpeg(copies=1):
    return behind_start(jpeg(), segment(0xE1, b"Exif\0\0" + exif(5400, 65000)) * copies)


def fill_bytes(count=3_000_000):
    return behind_start(jpeg(), b"\xff" * count)


def segment_flood(count=1_000_000, marker=0xE0):
    return behind_start(jpeg(), segment(marker) * count)


# Every trap, by name


TRAPS = {
    "png: text chunk of 4 GB": lying_png,
    "png: data chunk of 4 GB": lambda: lying_png(b"IDAT"),
    "png: private chunk of 4 GB": lambda: lying_png(b"prVt"),
    "png: palette of 4 GB": lambda: lying_png(b"PLTE"),
    "png: inflating texts": text_bomb,
    "png: inflating international texts": lambda: text_bomb(b"iTXt"),
    "png: inflating profile": lambda: text_bomb(b"iCCP", 1),
    "png: EXIF": exif_bomb_png,
    "png: EXIF of 7 MB": lambda: png(before=chunk(b"eXIf", exif(1))),
    "png: animation": lambda: animation(1000, 800),
    "png: no data for its size": lambda: png(5000, 5000, 16, 6, 1, data=zeros(1000)),
    "png: more data than its size": lambda: png(data=zeros(400_000_000)),
    "png: floods of chunks": lambda: png(before=chunk(b"tIME", bytes(7)) * 300_000),
    "png: floods of data chunks": lambda: png(before=chunk(b"IDAT") * 300_000),
    "png: suggested palettes": lambda: png(before=chunk(b"sPLT", b"k\0\x08" + bytes(600_000)) * 9),
    "jpeg: thousands of scans": lambda: scans(1920, 1080, 1000),
    "jpeg: scans of a large image": lambda: scans(5000, 5000, 30),
    "jpeg: scans of a tiny image": lambda: scans(8, 8, 100_000),
    "jpeg: restarts": lambda: scans(1920, 1080, 300, refining=False, restart=1),
    "jpeg: no data for its size": lambda: with_size(jpeg(), 5000, 5000),
    "jpeg: no data for its size, in scans": lambda: with_size(
        jpeg(64, 48, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 5000, 5000
    ),
    "jpeg: no data for its size, and comments": lambda: with_size(
        scans(640, 480, 3)[:-2] + segment(0xFE, bytes(60_000)) * 9 + b"\xff\xd9", 5000, 5000
    ),
    "jpeg: scans without means, and comments": lambda: with_size(
        scans(640, 480, 3, means=False)[:-2] + segment(0xFE, bytes(60_000)) * 9 + b"\xff\xd9",
        5000,
        5000,
    ),
    "jpeg: EXIF": exif_bomb_jpeg,
    "jpeg: EXIF many times": lambda: exif_bomb_jpeg(50),
    "jpeg: fill bytes": fill_bytes,
    "jpeg: floods of segments": segment_flood,
    "jpeg: floods of tables": lambda: segment_flood(100_000, 0xC4),
    "jpeg: 12 bits": lambda: scans(5000, 5000, 4, precision=12),
    "jpeg: arithmetic coding": lambda: scans(5000, 5000, 4, sof=0xCA),
    "jpeg: lossless": lambda: scans(5000, 5000, 1, sof=0xC3),
}
"""Makers of files that must be refused or decoded at next to no cost."""
