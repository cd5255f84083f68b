"""Render a labelled set of camera-like images of 100 emoji, as an ImageNet-style folder.

    python -m examples.cards.render OUT --split train --images 20000

in the clone's root writes `OUT/000_dog_face/000000.jpg` and so on. The same arguments give the
same files. A run that was stopped goes on where it ended.

Three splits, `train`, `calibration` and `test`, share no random numbers and no background texture,
and `test` has kinds of backgrounds that `train` lacks; see `backgrounds.SPLIT_FAMILIES`. All three
show the same 100 pictures: the set measures how well a network sees them, not what else it knows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from examples.cards import camera, objects
from examples.cards.backgrounds import SPLITS, Image, draw_background
from examples.cards.classes import CLASSES, glyphs
from examples.cards.placement import Placement, place

SETTINGS = ".cards.json"
"""File in the output folder that tells what was rendered into it."""

MAX_DIFFICULTY = 2.0
_MIN_SIDE = 32
_MAX_SIDE = 4096
_CHUNK = 16


class RenderError(ValueError):
    """Arguments that cannot be rendered, or a folder that cannot be used; one sentence."""


class Scene(NamedTuple):
    """An image and how it came to be.

    Attributes:
        data: The image as a JPEG file.
        family: Family of its background.
        texture_seed: Seed of its background.
        placement: Where the object is.
        hidden: Part of the object's square that is covered by something else.
    """

    data: bytes
    family: str
    texture_seed: int
    placement: Placement
    hidden: float


def render(
    class_index: int,
    seed: int,
    split: str,
    size: tuple[int, int] = (256, 256),
    difficulty: float = 1.0,
    number: int = 0,
) -> Image:
    """Render one image; the same arguments give the same pixels with the same OpenCV and NumPy.

    Args:
        class_index: Index in `classes.CLASSES`.
        seed: Seed of the whole set, 0 or more.
        split: `train`, `calibration` or `test`.
        size: Width and height in pixels, each 32 to 4096.
        difficulty: Strength of everything that makes it hard to see: 0 for none, at most 2.
        number: Number of the image among those of its class, 0 or more.

    Returns:
        BGR, uint8, of shape (height, width, 3).

    Raises:
        RenderError: An argument is out of its range.
    """
    scene = compose(class_index, seed, split, size, difficulty, number)
    return cv2.imdecode(np.frombuffer(scene.data, np.uint8), cv2.IMREAD_COLOR)


def compose(
    class_index: int,
    seed: int,
    split: str,
    size: tuple[int, int] = (256, 256),
    difficulty: float = 1.0,
    number: int = 0,
) -> Scene:
    """Render one image as a JPEG file and tell what is in it; otherwise as `render`.

    Raises:
        RenderError: An argument is out of its range.
    """
    _check(class_index, seed, split, size, difficulty, number)
    rng = np.random.default_rng([SPLITS[split], seed, class_index, number])
    pictures = glyphs()
    family, texture_seed, image = draw_background(rng, split, size)
    placement = place(rng, size, difficulty)
    pixels = placement.share * min(size)
    objects.add_clutter(rng, image, pictures, pixels, difficulty)
    sprite = objects.make_sprite(rng, pictures[class_index], pixels, difficulty)
    objects.put(image, sprite, placement.matrix)
    hidden = objects.add_occluders(rng, image, placement, difficulty)
    image = camera.blur(rng, image, pixels, difficulty)
    # A small object is hard enough: what light and noise leave of it has to be recognisable.
    image = camera.expose(rng, image, difficulty * min(1.0, 0.4 + 1.2 * placement.share))
    data = camera.jpeg(rng, image, difficulty)
    return Scene(data, family, texture_seed, placement, hidden)


def _check(
    class_index: int,
    seed: int,
    split: str,
    size: tuple[int, int],
    difficulty: float,
    number: int,
) -> None:
    if split not in SPLITS:
        raise RenderError(f"the split is one of {', '.join(SPLITS)}, not '{split}'")
    if not 0 <= class_index < len(CLASSES):
        raise RenderError(f"a class is 0 to {len(CLASSES) - 1}, not {class_index}")
    if seed < 0 or number < 0:
        raise RenderError(f"seed and number are 0 or more, not {seed} and {number}")
    if not all(_MIN_SIDE <= side <= _MAX_SIDE for side in size):
        wrong = "x".join(map(str, size))
        raise RenderError(f"width and height are {_MIN_SIDE} to {_MAX_SIDE} pixels, not {wrong}")
    if not 0 <= difficulty <= MAX_DIFFICULTY:
        raise RenderError(f"the difficulty is 0 to {MAX_DIFFICULTY:g}, not {difficulty}")


def render_folder(
    out: Path,
    images: int,
    seed: int,
    split: str,
    size: tuple[int, int],
    difficulty: float,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, missing: None,
) -> int:
    """Render a set into a folder; image `i` is of class `i % 100`. Files that exist are kept.

    Args:
        out: The folder; made if it does not exist.
        images: Number of images in all.
        seed: As in `render`.
        split: As in `render`.
        size: As in `render`.
        difficulty: As in `render`.
        workers: Number of processes; with more than one, the calling program needs the usual
            `if __name__ == "__main__"`, since they import it.
        progress: Called with the number of images rendered and the number that were missing.

    Returns:
        The number of images rendered.

    Raises:
        RenderError: An argument is out of its range, or the folder holds something else.
        OSError: A file cannot be written.
        BrokenExecutor: A worker was killed.
    """
    _check(0, seed, split, size, difficulty, 0)
    if images < 1 or workers < 1:
        raise RenderError(f"images and workers are 1 or more, not {images} and {workers}")
    _claim(out, {"split": split, "seed": seed, "size": list(size), "difficulty": difficulty})
    for each in CLASSES[:images]:
        (out / each.folder).mkdir(exist_ok=True)
    missing = [index for index in range(images) if not _file(out, index).exists()]
    write = partial(_write, out, seed, split, size, difficulty)
    done = 0
    progress(done, len(missing))
    for number in _in_order(write, missing, workers):
        done += number
        progress(done, len(missing))
    return done


def _in_order(
    write: Callable[[list[int]], int], missing: list[int], workers: int
) -> Iterator[int]:
    """Render chunks of images, in this process or in several; yield how many each had."""
    chunks = (missing[at : at + _CHUNK] for at in range(0, len(missing), _CHUNK))
    if workers == 1:
        yield from map(write, chunks)
        return
    # Not forked: OpenCV's threads would be missing in the copies, which then wait for them.
    with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        try:
            # A few chunks at a time: after Ctrl-C, those that are queued are still rendered.
            waiting = [_submit(pool, write, chunk) for chunk in islice(chunks, 2 * workers)]
            while waiting:
                yield waiting.pop(0).result()
                waiting += [_submit(pool, write, chunk) for chunk in islice(chunks, 1)]
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, write: Callable[[list[int]], int], chunk: list[int]
) -> Future[int]:
    """Hand a chunk to the workers, which are started by this and inherit the signal mask.

    They leave Ctrl-C to the main process: they finish what they have begun.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(write, chunk)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _file(out: Path, index: int) -> Path:
    number, class_index = divmod(index, len(CLASSES))
    return out / CLASSES[class_index].folder / f"{number:06d}.jpg"


def _write(
    out: Path, seed: int, split: str, size: tuple[int, int], difficulty: float, indices: list[int]
) -> int:
    for index in indices:
        number, class_index = divmod(index, len(CLASSES))
        scene = compose(class_index, seed, split, size, difficulty, number)
        write_file(_file(out, index), scene.data)
    return len(indices)


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    # The name is no image's: what a killed run leaves behind is not taken for one.
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Note what is rendered into a folder, so that no run mixes two sets."""
    note = out / SETTINGS
    if note.exists():
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            raise RenderError(f"{note} is damaged; give a new folder") from None
        if found != settings:
            raise RenderError(f"{out} holds images with other settings, {json.dumps(found)}")
        return
    if out.exists() and any(out.iterdir()):
        raise RenderError(f"{out} is not empty and holds no card images; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_file(note, (json.dumps(settings) + "\n").encode())


def parse_size(text: str) -> tuple[int, int]:
    """Parse `WIDTHxHEIGHT` in pixels.

    Raises:
        ArgumentTypeError: The text has another form.
    """
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a size is WIDTHxHEIGHT, not '{text}'") from None
    return width, height


def main(arguments: list[str] | None = None) -> int:
    """Render a set as the command line says; return the exit status."""
    parser = argparse.ArgumentParser("python -m examples.cards.render", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to render into")
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--images", type=int, required=True, help="number of images in all")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--side", type=int, default=256, help="square images; default 256 pixels")
    sizes.add_argument("--size", type=parse_size, metavar="WxH", help="others, such as 640x480")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--difficulty", type=float, default=1.0, help="0 to 2; default 1")
    parser.add_argument("--workers", type=int, default=1, help="processes; default 1")
    given = parser.parse_args(arguments)
    size = given.size or (given.side, given.side)
    began = time.monotonic()

    def show(done: int, missing: int) -> None:
        if sys.stderr.isatty() or done == missing:
            rate = done / max(time.monotonic() - began, 1e-3)
            print(f"\r{done} of {missing} images, {rate:.0f} a second", end="", file=sys.stderr)

    cv2.setNumThreads(1)  # images are small: more threads only get in each other's way
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the workers too
    try:
        render_folder(
            given.out, given.images, given.seed, given.split, size, given.difficulty,
            given.workers, show,
        )  # fmt: skip
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (RenderError, OSError, BrokenExecutor) as error:
        print(f"render: {error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
