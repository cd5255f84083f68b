"""Calibration images, and others held out to compare the models with: the pixels the BPU sees.

Images go through the node's own conversion to NV12, and from there to RGB as the compiled model's
first node computes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efv2_ros.classify.classifier import converter
from efv2_ros.classify.model import Model
from efv2_ros.classify.options import ViewOptions
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.sources import FloatFolder, Source, Split
from efv2_ros.runtimes.base import ImageInput
from efv2_ros.runtimes.onnx import rgb_from_yuv
from efv2_ros.toolchain.environment import Stopped
from efv2_ros.vision.frame import FrameError
from efv2_ros.vision.planes import Nv12Planes


@dataclass(frozen=True, eq=False)
class Sample:
    """An image as the model gets it.

    Attributes:
        name: Its path in the folder, or its number and stamp in the bag.
        group: The folder directly below the source that it is in; empty without one.
        size: Width and height of the original in pixels.
        nv12: uint8 of shape (height * 3 / 2, width); None for an array made before.
        array: float32 of shape (1, 3, height, width), an array made before; None for an image.
    """

    name: str
    group: str
    size: tuple[int, int]
    nv12: NDArray[np.uint8] | None = None
    array: NDArray[np.float32] | None = None

    def rgb(self, image: ImageInput) -> NDArray[np.float32]:
        """Compute RGB in 0..255, float32 of shape (1, 3, height, width); see `rgb_from_nv12`."""
        if self.nv12 is not None:
            return rgb_from_nv12(self.nv12, image)
        assert self.array is not None, "a sample is an image or an array"
        return self.array

    def content(self) -> bytes:
        """The bytes that make it what it is, for digests and to find equal images."""
        pixels = self.nv12 if self.nv12 is not None else self.array
        return b"" if pixels is None else pixels.tobytes()


@dataclass(frozen=True, eq=False)
class Images:
    """Images chosen from a source.

    Attributes:
        kind: `folder`, `bag` or `arrays`.
        path: The folder or bag.
        topic: Topic of a bag; empty otherwise.
        total: Number of images there.
        seed: Seed of the choice.
        calibration: The images to calibrate with.
        held_out: Other images of the same source.
        left_out: A sentence for each image that cannot be used.
    """

    kind: str
    path: Path
    topic: str
    total: int
    seed: int
    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    left_out: tuple[str, ...]


def plan(source: Source, calibration: int, held_out: int, seed: int) -> Split:
    """Divide a source's images. If they do not suffice, up to half of them are held out."""
    spared = min(held_out, len(source) // 2)
    count = len(source) if isinstance(source, FloatFolder) else len(source) - spared
    return source.split(min(calibration, count), held_out, seed)


def load_images(
    source: Source,
    split: Split,
    model: Model,
    view: ViewOptions,
    seed: int,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Images:
    """Read and convert the chosen images of a source.

    Args:
        source: Where they are.
        split: Which ones.
        model: The model whose input they become.
        view: How a frame is turned into it, as in the node.
        seed: Seed that `split` was made with.
        on_progress: Called with the number of images done.
        should_stop: Polled for each image.

    Raises:
        QuantizeError: An array has the wrong size.
        Stopped: `should_stop` returned True.
    """
    left_out: list[str] = []
    samples: dict[int, Sample] = {}
    if isinstance(source, FloatFolder):
        for place in split.calibration:
            if should_stop():
                raise Stopped
            array = source.read(place)
            size = (model.image.width, model.image.height)
            samples[place] = Sample(source.files[place].name, "", size, array=array)
            on_progress(len(samples))
    else:
        own = converter(model, view)
        places = sorted({*split.calibration, *split.held_out})
        reading = source.read(places, left_out.append, should_stop, view.max_pixels)
        for place, photo in reading:
            try:
                nv12 = own.convert(photo.frame)
            except FrameError as error:
                left_out.append(f"{photo.name}: {error}")
                continue
            samples[place] = Sample(photo.name, photo.group, photo.size, nv12)
            on_progress(len(samples))
    return Images(
        source.kind,
        source.path,
        getattr(getattr(source, "topic", None), "name", ""),
        len(source),
        seed,
        _of(samples, split.calibration),
        _of(samples, split.held_out),
        tuple(left_out),
    )


def _of(samples: dict[int, Sample], places: Sequence[int]) -> tuple[Sample, ...]:
    return tuple(samples[place] for place in places if place in samples)


def rgb_from_nv12(nv12: NDArray[np.uint8], image: ImageInput) -> NDArray[np.float32]:
    """Compute the RGB that the BPU computes from NV12, before mean and scale.

    Each chroma sample counts for its 2x2 pixels. Values are not clipped: as on the BPU, those of
    saturated colours may lie somewhat outside 0..255.

    Args:
        nv12: uint8 of shape (height * 3 / 2, width).
        image: The model's input, for the range of the samples.

    Returns:
        float32 of shape (1, 3, height, width).
    """
    matrix, offset = rgb_from_yuv(ImageInput(image.height, image.width, image.nv12_range))
    planes = Nv12Planes.of(nv12)
    chroma = planes.uv.astype(np.float32) @ matrix[:, 1:].T.astype(np.float32)
    chroma = np.moveaxis(chroma + offset.astype(np.float32), 2, 0)
    chroma = chroma.repeat(2, axis=1).repeat(2, axis=2)
    luma = planes.y.astype(np.float32) * matrix[:, 0].astype(np.float32)[:, None, None]
    return np.ascontiguousarray((luma + chroma)[None], np.float32)


def network_input(sample: Sample, image: ImageInput) -> NDArray[np.float32]:
    """Compute a float model's input: RGB, normalised; float32 of shape (1, 3, height, width)."""
    mean, scale = (
        np.array(each, np.float32).reshape(3, 1, 1) for each in (image.mean, image.scale)
    )
    normalised: NDArray[np.float32] = (sample.rgb(image) - mean) * scale
    return normalised


def write_calibration(
    samples: Sequence[Sample],
    image: ImageInput,
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Write calibration images as the toolchain reads them: one file of float32 each.

    Args:
        samples: The images.
        image: The model's input.
        folder: An existing folder.
        should_stop: Polled for each image.

    Raises:
        QuantizeError: A file cannot be written.
        Stopped: `should_stop` returned True.
    """
    for number, sample in enumerate(samples):
        if should_stop():
            raise Stopped
        path = folder / f"{number:05}.rgb"
        try:
            path.write_bytes(sample.rgb(image).astype("<f4").tobytes())
        except OSError as error:
            raise QuantizeError(
                f"cannot write the calibration image {path}: {error.strerror or error}"
            ) from error


def digest(samples: Sequence[Sample]) -> str:
    """Compute the SHA-256 of the samples' pixels, in their order."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(hashlib.sha256(sample.content()).digest())
    return found.hexdigest()


def without(samples: Sequence[Sample], others: Sequence[Sample]) -> tuple[Sample, ...]:
    """Leave out the samples whose pixels are exactly those of one of `others`."""
    known = {hashlib.sha256(each.content()).digest() for each in others}
    return tuple(each for each in samples if hashlib.sha256(each.content()).digest() not in known)
