"""Send malformed and hostile image messages through the package, and measure what they cost.

    python test/support/malformed_messages.py --count 1000000 --seed 0 --out result.json

Each message goes the node's way: a serialized message, viewed as a frame, checked, converted. A
message depends on the seed and its number only; `--first NUMBER --count 1` repeats one. After
every `--good-every` of them comes a valid one, whose NV12 must be what it was at first.

The cost is CPU time of this process, the least of three tries where it is high, and where it is,
half again that of the costliest valid picture at this moment (`valid_ms`) is allowed: a picture in
full HD takes as long on a slow or busy machine, whether or not a bit of it is wrong.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import hostile_files

from efv2_ros.messages.images import IMAGE_TYPES
from efv2_ros.node.malloc import keep_memory
from efv2_ros.vision.frame import FrameError, FrameFault
from efv2_ros.vision.nv12 import Nv12Converter, check
from efv2_ros.vision.pixels import PIXEL_FORMATS

HOSTILE = (0, 1, 2, 3, 0x7F, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
           0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
"""Numbers in which lengths and sizes are often wrong."""

NO_HEADER = {"frame_id": "camera"}
"""What the views of messages without a header want to be told."""

SLOW_MS = 100


# Messages in CDR


def cdr_string(out, text):
    out += bytes(-len(out) % 4) + struct.pack("<I", len(text) + 1) + text + b"\0"


def cdr_header():
    out = bytearray(struct.pack("<iI", 1, 2))
    cdr_string(out, b"camera")
    return out


def raw_message(encoding, width, height, step, data):
    out = cdr_header()
    out += bytes(-len(out) % 4) + struct.pack("<II", height, width)
    cdr_string(out, encoding.encode())
    out += b"\0"
    out += bytes(-len(out) % 4) + struct.pack("<II", step, len(data)) + data
    return b"\0\1\0\0" + bytes(out)


def compressed_message(data, format=b"jpeg"):
    out = cdr_header()
    cdr_string(out, format)
    out += bytes(-len(out) % 4) + struct.pack("<I", len(data)) + data
    return b"\0\1\0\0" + bytes(out)


def hbm_message(size, encoding, width, height, step, used):
    head = struct.pack("<iiIIIII", 0, 1, 2, height, width, used, step)
    return b"\0\1\0\0" + head + encoding.encode().ljust(12, b"\0") + bytes(size)


# Valid messages


def scene(width, height, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def valid_raw(width, height):
    for encoding, pixels in PIXEL_FORMATS.items():
        rows = height * 3 // 2 if pixels.kind == "yuv420" else height
        step = width * pixels.channels
        data = np.resize(scene(64, 48).reshape(-1), rows * step).tobytes()
        yield raw_message(encoding, width, height, step, data)


def valid_files(width, height):
    bgr = scene(width, height)
    for parameters in (
        [],
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_QUALITY, 40, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    ):
        yield cv2.imencode(".jpg", bgr, parameters)[1].tobytes()
    yield cv2.imencode(".jpg", bgr[..., 0])[1].tobytes()
    for pixels in (bgr, bgr[..., 0], np.dstack([bgr, bgr[..., :1]]), bgr.astype(np.uint16) * 257):
        yield cv2.imencode(".png", pixels)[1].tobytes()
    for depth, colour, interlaced in ((16, 6, 1), (16, 6, 0), (1, 0, 0), (8, 4, 1)):
        yield hostile_files.png(width, height, depth, colour, interlaced)
    yield hostile_files.png(width, height, 8, 3, before=hostile_files.chunk(b"PLTE", bytes(768)))


def valid_hbm(transport):
    size, width, height = {
        "hbmem_480p": (921_600, 640, 480),
        "hbmem_540p": (1_555_200, 960, 540),
        "hbmem_1080p": (6_220_800, 1920, 1080),
    }[transport]
    yield hbm_message(size, "nv12", width, height, width, width * height * 3 // 2)
    if transport == "hbmem_480p":
        yield hbm_message(size, "bgr8", 320, 240, 960, 320 * 240 * 3)


class Pools:
    """What messages are made from."""

    def __init__(self):
        self.files = [*valid_files(64, 48), *valid_files(333, 251)] * 4 + [*valid_files(640, 480)]
        self.large_files = list(valid_files(1920, 1080))
        self.raw = [*valid_raw(64, 48)] * 4 + [*valid_raw(640, 480)]
        self.hbm = {
            name: list(valid_hbm(name)) for name in IMAGE_TYPES if name.startswith("hbmem")
        }
        self.traps = {name: make() for name, make in hostile_files.TRAPS.items()}

    def valid(self):
        """Each valid message once, with its transport."""
        for each in dict.fromkeys(self.raw):
            yield "raw", each
        for each in dict.fromkeys([*self.files, *self.large_files]):
            yield "compressed", compressed_message(each)
        for name, messages in self.hbm.items():
            for each in messages:
                yield name, each


# Malformed ones


def flipped(random, data, limit=None):
    """The data with some bytes changed, among the first `limit`."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        at = random.randrange(min(len(changed), limit or len(changed)))
        changed[at] = random.choice(
            (0, 0xFF, random.randrange(256), changed[at] ^ 1 << random.randrange(8))
        )
    return bytes(changed)


def with_number(random, data, limit=None):
    """The data with a hostile number written somewhere."""
    changed = bytearray(data)
    if len(changed) < 8:
        return bytes(changed)
    at = random.randrange(min(len(changed) - 4, limit or len(changed)))
    number = random.choice((*HOSTILE, random.getrandbits(32), random.randrange(20_000)))
    changed[at : at + 4] = struct.pack(random.choice("<>") + "I", number)
    return bytes(changed)


def cut(random, data):
    return data[: random.randrange(len(data) + 1)]


def spliced(random, data):
    """The data with a part left out, or twice, or random bytes put in."""
    first, second = sorted(random.randrange(len(data) + 1) for _ in range(2))
    second = min(second, first + random.choice((1, 4, 64, 5000)))
    middle = random.choice(
        (b"", data[first:second] * 2, random.randbytes(random.choice((1, 3, 40, 600))))
    )
    return data[:first] + middle + data[second:]


def chunks_of(data):
    """Start and end of each chunk of a valid PNG."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield at, end
        at = end


def png_with_lie(random, data):
    """A PNG with one chunk moved, repeated, renamed, or with a lying length; checksums fit."""
    at, end = random.choice(list(chunks_of(data)))
    kind, content = data[at + 4 : at + 8], data[at + 8 : end - 4]
    kinds = (b"tEXt", b"zTXt", b"iCCP", b"eXIf", b"fcTL", b"acTL", b"PLTE")
    kind = random.choice((kind, kind, *kinds))
    length = random.choice((None, None, len(content) + 1, *HOSTILE))
    if kind == b"IHDR":
        content = struct.pack(
            ">IIBBBBB",
            random.choice((*HOSTILE, 64, 640, 4000)), random.choice((*HOSTILE, 48, 480, 4000)),
            random.choice((1, 2, 4, 8, 16, 3)), random.choice((0, 2, 3, 4, 6, 1)),
            0, 0, random.choice((0, 1, 2)),
        )  # fmt: skip
    new = hostile_files.chunk(kind, content, length)
    where = random.choice([at, end, *(start for start, _ in chunks_of(data))])
    if random.random() < 0.5:
        return data[:at] + new + data[end:]
    return data[:where] + new + data[where:]


def jpeg_with_lie(random, data):
    """A JPEG of another size, or with segments repeated or foreign ones put in."""
    starts = [at for at in range(2, min(len(data), 700)) if data[at] == 0xFF]
    at = random.choice(starts)
    match random.randrange(4):
        case 0:
            sides = [random.choice((*HOSTILE, 8, 640, 5000, 20_000)) & 0xFFFF for _ in range(2)]
            return hostile_files.with_size(data, *sides)
        case 1:
            marker = random.choice(b"\xc0\xc1\xc2\xc4\xc9\xd8\xda\xdb\xdc\xdd\xe1")
            content = random.randbytes(random.choice((0, 1, 2, 8, 11, 17, 64)))
            return data[:at] + hostile_files.segment(marker, content) + data[at:]
        case 2:
            other = random.choice(starts)
            first, last = min(at, other), max(at, other)
            return data[:last] + data[first:last] * random.choice((1, 3, 200)) + data[last:]
        case _:
            return data[:at] + bytes([0xFF] * random.choice((1, 3000))) + data[at:]


def finished(random, data):
    """Perhaps with the end marker of the format, so that it does not look cut off."""
    return data + random.choice((b"", b"\xff\xd9", hostile_files.chunk(b"IEND")))


def malformed_file(random, pools):
    pool = pools.large_files if random.random() < 0.01 else pools.files
    data = random.choice(pool)
    lie = png_with_lie if data.startswith(b"\x89PNG") else jpeg_with_lie
    change = random.choice((flipped, with_number, cut, spliced, lie, lie, lie))
    data = change(random, data)
    if random.random() < 0.2 and data:
        data = random.choice((flipped, with_number, spliced))(random, data)
    return change.__name__, finished(random, data)


def trap(random, pools):
    name = random.choice(list(pools.traps))
    data = pools.traps[name]
    if random.random() < 0.5:
        data = random.choice((flipped, with_number))(random, data, 400)
    return f"trap {name}", data


def hostile_raw(random, pools):
    def side():
        return random.choice((*HOSTILE, 64, 48, 65535, random.randrange(1, 9000)))

    encoding = random.choice((*PIXEL_FORMATS, "32FC1", "", "jpeg", "\xff"))
    data = bytes(random.choice((0, 1, 100, 9216, 100_000)))
    step = random.choice((0, side(), side()))
    return raw_message(encoding, side(), side(), step, data)


def hostile_hbm(random):
    name, (size, *_) = random.choice(
        (("hbmem_480p", (921_600,)), ("hbmem_480p", (921_600,)), ("hbmem_540p", (1_555_200,)))
    )
    numbers = [random.choice((*HOSTILE, 64, 480, 640, 1280)) for _ in range(4)]
    encoding = random.choice((*PIXEL_FORMATS, "x" * 12))[:12]
    return name, hbm_message(size, encoding, *numbers)


def mutated_cdr(random, message):
    change = random.choice((flipped, with_number, with_number, cut, spliced))
    if change in (flipped, with_number):
        return change(random, message, random.choice((4, 60, 100, None)))
    return change(random, message)


def malformed(number, seed, pools):
    """The message of a number: what it is, its transport, its bytes."""
    source = random.Random(f"{seed}/{number}")
    kind = source.random()
    if kind < 0.45:
        name, data = malformed_file(source, pools)
        format = source.choice((b"jpeg", b"png", b"bgr8; png compressed "))
        return f"file {name}", "compressed", compressed_message(data, format)
    if kind < 0.47:
        name, data = trap(source, pools)
        return name, "compressed", compressed_message(data)
    if kind < 0.65:
        message = compressed_message(source.choice(pools.files))
        return "cdr", "compressed", mutated_cdr(source, message)
    if kind < 0.82:
        return "cdr", "raw", mutated_cdr(source, source.choice(pools.raw))
    if kind < 0.95:
        return "raw sizes", "raw", hostile_raw(source, pools)
    if kind < 0.97:
        return "hbm sizes", *hostile_hbm(source)
    if kind < 0.99:
        transport = source.choice(list(IMAGE_TYPES))
        return "noise", transport, b"\0\1\0\0" + source.randbytes(source.choice((0, 3, 60, 900)))
    transport = source.choice(("hbmem_480p", "hbmem_480p", "hbmem_540p", "hbmem_1080p"))
    return "cdr", transport, mutated_cdr(source, source.choice(pools.hbm[transport]))


# The run


class Receiver:
    """What the node does with a message until the model runs."""

    def __init__(self):
        self._converter = Nv12Converter()
        self._views = {
            name: functools.partial(each.frame, **({} if each.has_header else NO_HEADER))
            for name, each in IMAGE_TYPES.items()
        }

    def __call__(self, transport, message):
        """Return `classified` or the fault."""
        try:
            self.nv12(transport, message)
        except FrameError as error:
            assert error.fault in get_args(FrameFault), f"{error.fault!r} is no fault"
            return error.fault
        return "classified"

    def nv12(self, transport, message):
        """Return what the model gets."""
        frame = self._views[transport](message)
        check(frame)
        return self._converter.convert(frame)


def cost(receive, transport, message):
    """Receive a message; the outcome, milliseconds of CPU time, and of real time."""
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = receive(transport, message)
    return outcome, (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def peak_mb():
    """The most memory this process has had, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def run(count, seed=0, first=0, good_every=100, on_progress=lambda done: None):
    """Send valid messages, then `count` malformed ones; return what they cost, for JSON."""
    pools, receive = Pools(), Receiver()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the pools
    valid = list(pools.valid())
    for _ in range(3):
        expected = [receive.nv12(*each).tobytes() for each in valid]
    before = peak_mb()
    outcomes, slowest, slow, unexpected, changed, good = Counter(), {}, [], [], [], 0
    for number in range(first, first + count):
        kind, transport, message = malformed(number, seed, pools)
        valid_ms = 0.0
        try:
            outcome, cpu_ms, wall_ms = cost(receive, transport, message)
            if cpu_ms > SLOW_MS:
                cpu_ms = min(cpu_ms, *(cost(receive, transport, message)[1] for _ in range(2)))
                valid_ms = max(cost(receive, *each)[1] for each in valid)
        except Exception as error:
            outcome, cpu_ms, wall_ms = "unexpected", 0.0, 0.0
            unexpected.append({"number": number, "kind": kind, "error": repr(error)})
        outcomes[outcome] += 1
        what = {
            "number": number, "kind": kind, "outcome": outcome, "bytes": len(message),
            "cpu_ms": round(cpu_ms, 2), "wall_ms": round(wall_ms, 2),
            "valid_ms": round(valid_ms, 2),
        }  # fmt: skip
        if what["cpu_ms"] > slowest.get(kind, what)["cpu_ms"] or kind not in slowest:
            slowest[kind] = what
        if what["cpu_ms"] > max(SLOW_MS, 1.5 * valid_ms):
            slow.append(what)
        if (number + 1) % good_every == 0:
            which = good % len(valid)
            if receive.nv12(*valid[which]).tobytes() != expected[which]:
                changed.append({"after": number, "valid": which, "transport": valid[which][0]})
            good += 1
        on_progress(number + 1 - first)
    ranking = sorted(slowest.values(), key=lambda each: -each["cpu_ms"])
    return {
        "count": count, "seed": seed, "first": first, "opencv": cv2.__version__,
        "outcomes": dict(outcomes), "unexpected": unexpected,
        "good": good, "good_with_other_nv12": changed,
        "slower_than_100_ms": len(slow), "slow": slow[:100],
        "slowest": ranking[0] if ranking else None, "slowest_of_each_kind": ranking,
        "peak_mb_valid": round(before, 1), "peak_mb": round(peak_mb(), 1),
        "growth_mb": round(peak_mb() - before, 1),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first message")
    parser.add_argument("--good-every", type=int, default=100, help="malformed for a valid one")
    parser.add_argument("--out", type=Path, help="write the result there instead of printing it")
    arguments = parser.parse_args()
    keep_memory()
    terminal = os.fdopen(os.dup(2), "w")
    sys.stderr = terminal
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # OpenCV and libpng report each broken file
    start = time.monotonic()
    shown = start

    def on_progress(done):
        nonlocal shown
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            left = (shown - start) / done * (arguments.count - done)
            print(f"{done} of {arguments.count}, {left:.0f} s left", file=terminal, flush=True)

    result = run(
        arguments.count, arguments.seed, arguments.first, arguments.good_every, on_progress
    )
    text = json.dumps(result, indent=1)
    if arguments.out:
        arguments.out.write_text(text)
        print(json.dumps({k: v for k, v in result.items() if not isinstance(v, list)}, indent=1))
    else:
        print(text)
    return int(bool(result["unexpected"] or result["good_with_other_nv12"]))


if __name__ == "__main__":
    sys.exit(main())
