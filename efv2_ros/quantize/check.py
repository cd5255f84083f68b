"""The calibration check: what is wrong with calibration images, found before anything is compiled.

A compiler takes any numbers for images, and a model that was calibrated with wrong ones is only
found out by its accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from efv2_ros.evaluation.classes import Classes, EvaluationError
from efv2_ros.evaluation.dataset import ImageClasses
from efv2_ros.quantize.calibration import Images, Sample, rgb_from_nv12
from efv2_ros.runtimes.base import ImageInput
from efv2_ros.vision.planes import Nv12Planes

Level = Literal["error", "warning", "note"]

FEW = 20
"""With fewer images, the ranges of many tensors are a matter of luck."""

_EXAMPLES = 3
_THUMBNAIL = 16
"""Side in pixels of the thumbnails by which images are compared."""

_SAME = 2.0
"""Mean difference of two thumbnails, of 255, below which two images look the same."""

_MANY = 0.1
"""Share of the images from which a fault of single images is worth a warning."""


class Remark(NamedTuple):
    """What the check found.

    Attributes:
        level: An `error` makes the result useless; a `warning` may make it worse; a `note` tells.
        kind: One word for programs.
        text: A sentence for people.
    """

    level: Level
    kind: str
    text: str


def check_images(
    images: Images, image: ImageInput, classes: Classes | None = None
) -> list[Remark]:
    """Check calibration images; errors come first.

    Args:
        images: The images.
        image: The model's input.
        classes: The model's classes, if they have names.
    """
    found = [*_count(images), *_left_out(images)]
    if images.calibration:
        if images.calibration[0].array is not None:
            found += _arrays(images.calibration)
        else:
            found += _photos(images.calibration, image)
        found += _duplicates(images.calibration, image)
        found += _sizes(images.calibration, image)
        if classes is not None:
            found += _classes(images, classes)
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda each: order[each.level])


def _count(images: Images) -> Iterator[Remark]:
    count = len(images.calibration)
    if not count:
        yield Remark("error", "none", f"No image of {images.path} can be calibrated with.")
    elif count < FEW:
        yield Remark(
            "warning", "few",
            f"{_images(count)} to calibrate with: below {FEW}, the ranges of many tensors are a "
            "matter of luck; 50 to 200 varied images are usual.",
        )  # fmt: skip


def _left_out(images: Images) -> Iterator[Remark]:
    if images.left_out:
        count = len(images.left_out)
        more = f" and {count - 1} more" if count > 1 else ""
        yield Remark(
            "warning", "unreadable",
            f"Left out because they cannot be read: {images.left_out[0]}{more}.",
        )  # fmt: skip


def _photos(samples: Sequence[Sample], image: ImageInput) -> Iterator[Remark]:
    """Check brightness, range and colour of NV12 images."""
    lumas = [Nv12Planes.of(each.nv12).y for each in samples if each.nv12 is not None]
    black, white = (0, 255) if image.nv12_range == "full" else (16, 235)
    means = np.array([each.mean() for each in lumas])
    deviations = np.array([each.std() for each in lumas])
    span = white - black
    yield from _lighting(samples, (means - black) / span, deviations / span)
    yield from _luma_range(lumas, deviations, image)
    yield from _channel_order([rgb_from_nv12(s.nv12, image) for s in samples
                               if s.nv12 is not None])  # fmt: skip


def _lighting(
    samples: Sequence[Sample], means: NDArray[np.float64], deviations: NDArray[np.float64]
) -> Iterator[Remark]:
    """Report images that show nothing; means and deviations of luma are shares of its range."""
    dark, bright = means < 0.06, means > 0.94
    faults: tuple[tuple[str, str, NDArray[np.bool_]], ...] = (
        ("dark", "are almost black", dark),
        ("bright", "are almost white", bright),
        ("flat", "have next to no contrast", (deviations < 0.02) & ~dark & ~bright),
    )
    for kind, what, mask in faults:
        count = int(mask.sum())
        if count == len(samples):
            yield Remark("error", kind, f"All {count} images {what}: they show nothing.")
        elif count > max(1, _MANY * len(samples)):
            names = [each.name for each, is_faulty in zip(samples, mask, strict=True) if is_faulty]
            yield Remark(
                "warning", kind,
                f"{count} of {len(samples)} images {what}, such as {_some(names)}.",
            )  # fmt: skip


def _luma_range(
    lumas: Sequence[NDArray[np.uint8]], deviations: NDArray[np.float64], image: ImageInput
) -> Iterator[Remark]:
    """Compare the range of the pixels with the one that the model takes."""
    darkest = min(int(each.min()) for each in lumas)
    brightest = max(int(each.max()) for each in lumas)
    contrasty = int((deviations > 25).sum())
    if image.nv12_range == "full":
        if contrasty >= 5 and 12 <= darkest <= 20 and 230 <= brightest <= 240:
            yield Remark(
                "warning", "range",
                f"No pixel of {len(lumas)} images is darker than {darkest} or brighter than "
                f"{brightest}: they seem to have limited range (16 to 235), and the model takes "
                "full range. If the camera sends limited range, say --input-range limited.",
            )  # fmt: skip
        return
    outside = np.mean([np.mean((each < 14) | (each > 238)) for each in lumas])
    if outside > 0.01:
        yield Remark(
            "warning", "range",
            f"{outside:.0%} of the pixels lie outside 16 to 235: the images seem to have full "
            "range, and the model takes limited range. If the camera sends full range, say "
            "--input-range full.",
        )  # fmt: skip


def _channel_order(rgb: Sequence[NDArray[np.float32]]) -> Iterator[Remark]:
    """Guess from the mean colour whether red and blue are swapped.

    In ImageNet, red exceeds blue by 20 of 255 on average, for light is warm and so are skin, fur,
    wood and earth. No single image tells anything.
    """
    excess = np.array([float(each[0, 2].mean() - each[0, 0].mean()) for each in rgb])
    if len(rgb) >= FEW and excess.mean() > 8 and np.mean(excess > 0) > 0.6:
        yield Remark(
            "warning", "channels",
            f"{np.mean(excess > 0):.0%} of the images are more blue than red, by "
            f"{excess.mean():.0f} of 255 on average; in photos it is the other way round. Red and "
            "blue may be swapped. Ignore this if the scene is blue.",
        )  # fmt: skip


def _arrays(samples: Sequence[Sample]) -> Iterator[Remark]:
    """Check float arrays that are to be RGB in 0..255."""
    arrays = [each.array for each in samples if each.array is not None]
    stacked = np.stack([each[0] for each in arrays])
    if not np.isfinite(stacked).all():
        yield Remark("error", "range", "Some values are not finite.")
        return
    # Saturated colours of NV12 go beyond 0..255, in few pixels.
    low, high = (float(each) for each in np.percentile(stacked, (0.5, 99.5)))
    shown = f"Almost all values lie in {low:.3g} to {high:.3g}"
    needed = "RGB in 0 to 255 is needed, for the compiled model normalises by itself"
    if low < -1 and high - low < 20:
        yield Remark(
            "error", "normalised",
            f"{shown}: they are normalised already. {needed}; normalised twice, every image is "
            "grey to it.",
        )  # fmt: skip
    elif low < -40:
        yield Remark("error", "normalised", f"{shown}: a mean is subtracted already. {needed}.")
    elif high <= 1.5:
        yield Remark("error", "range", f"{shown}, not in 0 to 255. {needed}.")
    elif high > 300:
        yield Remark("error", "range", f"{shown}, beyond 0 to 255. {needed}.")
    else:
        deviation = stacked.reshape(len(arrays), -1).std(1)
        is_inside = 12 <= stacked.min() <= 20 and 230 <= stacked.max() <= 240
        if is_inside and int((deviation > 25).sum()) >= 5:
            yield Remark(
                "warning", "range", f"{shown}: they seem to have limited range. {needed}."
            )
        means = stacked.reshape(len(arrays), -1).mean(1) / 255
        yield from _lighting(samples, means, deviation / 255)
        yield from _channel_order(arrays)
    flat = stacked.reshape(len(arrays), -1)
    near, far = (float(np.abs(flat[:, lag:] - flat[:, :-lag]).mean()) for lag in (1, 3))
    if far < 0.8 * near:
        yield Remark(
            "error", "layout",
            "The numbers repeat every three: they seem to be interleaved (HWC), and planes (CHW) "
            "are needed.",
        )  # fmt: skip


def _duplicates(samples: Sequence[Sample], image: ImageInput) -> Iterator[Remark]:
    """Count the images that look like an earlier one."""
    thumbnails = np.stack([_thumbnail(each, image) for each in samples])
    distinct: list[int] = []
    copies: list[tuple[int, int]] = []
    for place, each in enumerate(thumbnails):
        if distinct:
            difference = np.abs(thumbnails[distinct] - each).mean(1)
            nearest = int(difference.argmin())
            if difference[nearest] < _SAME:
                copies.append((place, distinct[nearest]))
                continue
        distinct.append(place)
    if len(copies) > max(1, _MANY * len(samples)) or (copies and len(distinct) < FEW):
        one, other = (samples[place].name for place in copies[0])
        yield Remark(
            "warning", "duplicates",
            f"{len(copies)} of {len(samples)} images look the same as another one, such as {one} "
            f"and {other}: {_images(len(distinct))} count.",
        )  # fmt: skip


def _thumbnail(sample: Sample, image: ImageInput) -> NDArray[np.float32]:
    """Shrink an image to a few grey pixels, float32, 1-D; a normalised one is spread to 0..255."""
    if sample.nv12 is not None:
        grey: NDArray[np.float32] = Nv12Planes.of(sample.nv12).y.astype(np.float32)
    else:
        grey = sample.rgb(image)[0].mean(0)
        if grey.max() - grey.min() < 20:
            grey = (grey - grey.min()) * (255 / max(float(grey.max() - grey.min()), 1e-6))
    size = (_THUMBNAIL, _THUMBNAIL)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32).reshape(-1)


def _sizes(samples: Sequence[Sample], image: ImageInput) -> Iterator[Remark]:
    small = [
        each for each in samples
        if min(each.size) > 0 and (each.size[0] < image.width or each.size[1] < image.height)
    ]  # fmt: skip
    if len(small) > _MANY * len(samples):
        width, height = small[0].size
        yield Remark(
            "warning", "small",
            f"{len(small)} of {len(samples)} images are smaller than the model's "
            f"{image.width}x{image.height} pixels and are enlarged, such as {small[0].name} with "
            f"{width}x{height}: they have less detail than the camera's images.",
        )  # fmt: skip


def _classes(images: Images, classes: Classes) -> Iterator[Remark]:
    """Compare the images' classes with the model's, where their folders or names tell them."""
    names = ImageClasses(classes)
    found = {each.name: _class_of(names, each.name) for each in images.calibration}
    known = {class_id for class_id in found.values() if class_id is not None}
    if 2 * sum(class_id is None for class_id in found.values()) > len(found):
        return
    groups = {each.group for each in images.calibration if each.group}
    named = {each.group for each in images.calibration if found[each.name] is not None}
    if unknown := sorted(groups - named):
        yield Remark(
            "warning", "classes",
            f"{len(unknown)} of {len(groups)} folders are named by none of the model's classes, "
            f"such as {_some(unknown)}.",
        )  # fmt: skip
    missing = [str(each) for each in range(classes.count) if each not in known]
    if len(known) == 1 and missing:
        text = f"All images are of one class, {next(iter(known))}: the others' values are unseen."
        yield Remark("warning", "classes", text)
    elif missing and len(images.calibration) < classes.count:
        text = f"The images are of {len(known)} of {classes.count:,} classes."
        yield Remark("note", "classes", text)
    elif missing:
        yield Remark(
            "warning", "classes",
            f"{len(missing)} of {classes.count:,} classes have no image, such as class "
            f"{_some(missing)}.",
        )  # fmt: skip


def _class_of(names: ImageClasses, name: str) -> int | None:
    try:
        return names.class_of(name)
    except EvaluationError:
        return None


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_EXAMPLES])


def errors(remarks: Sequence[Remark]) -> list[Remark]:
    """Those remarks that make the result useless."""
    return [each for each in remarks if each.level == "error"]
