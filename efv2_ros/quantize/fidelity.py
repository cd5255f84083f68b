"""Fidelity: the float model against the quantised one, on images that were not calibrated with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efv2_ros.errors import Efv2Error
from efv2_ros.evaluation.classes import Classes
from efv2_ros.evaluation.dataset import ImageClasses
from efv2_ros.evaluation.statistics import Interval, cosine, mcnemar, paired_difference, wilson
from efv2_ros.files import open_atomic_binary
from efv2_ros.quantize.build import Built, cache_folder
from efv2_ros.quantize.calibration import Sample, digest
from efv2_ros.quantize.prepare import Inputs, digest_text
from efv2_ros.toolchain.environment import Stopped
from efv2_ros.toolchain.jobs import run_quantized

MOST_CHANGED = 10
"""Number of images that are listed."""

_KEPT_DIGITS = 16


@dataclass(frozen=True)
class Answer:
    """A model's best class for an image.

    Attributes:
        class_id: The class.
        label: Its name.
        score: Its softmax probability, 0..1.
    """

    class_id: int
    label: str
    score: float


@dataclass(frozen=True, eq=False)
class Change:
    """What quantising changed for one image.

    Attributes:
        sample: The image.
        cosine: Cosine of the two models' logits.
        before: The float model's answer.
        after: The quantised model's answer.
        class_id: Its true class; None if that is not known.
    """

    sample: Sample
    cosine: float
    before: Answer
    after: Answer
    class_id: int | None


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy on the images of known class; shares of 1.

    Attributes:
        images: Number of such images.
        before: The float model's, and its interval.
        after: The quantised model's, and its interval.
        drop: The float model's minus the quantised one's, and its interval.
        p: Two-sided p-value of McNemar's exact test that both are equally good.
    """

    images: int
    before: tuple[float, Interval]
    after: tuple[float, Interval]
    drop: tuple[float, Interval]
    p: float


@dataclass(frozen=True, eq=False)
class Fidelity:
    """The float model against the quantised one.

    Attributes:
        path: Where the images are from.
        changes: Every image, the most changed first.
        cosines: Cosine of the logits of each image, float64, in the same order.
        agreed: Number of images with the same best class.
        agreement: Wilson's interval of their share.
        accuracy: Top-1 accuracy; None if no image's class is known.
        cached: Whether the cache had the quantised model's answers.
    """

    path: Path
    changes: tuple[Change, ...]
    cosines: NDArray[np.float64]
    agreed: int
    agreement: Interval
    accuracy: Accuracy | None
    cached: bool

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.changes)


def measure(
    inputs: Inputs,
    built: Built,
    *,
    use_cache: bool = True,
    on_progress: Callable[[str, float], None] = lambda step, share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fidelity | None:
    """Run both models on the evaluation images and compare them; None without images.

    Args:
        inputs: The float model and the images.
        built: The quantised model.
        use_cache: Whether the answers may be read from and kept in the cache.
        on_progress: Called with what is done now, and the share that is done.
        should_stop: Polled; ends the work.

    Raises:
        ToolchainError: The quantised model does not run.
        InferenceError: The float model does not run.
        EvaluationError: SciPy is missing.
        Stopped: `should_stop` returned True.
    """
    samples = inputs.evaluation
    if not samples:
        return None
    before = float_logits(inputs, samples, on_progress=on_progress, should_stop=should_stop)
    after, cached = quantized_logits(
        built, samples, use_cache=use_cache, on_progress=on_progress, should_stop=should_stop
    )
    return compare(inputs, before, after, cached=cached)


def float_logits(
    inputs: Inputs,
    samples: Sequence[Sample],
    *,
    on_progress: Callable[[str, float], None] = lambda step, share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> NDArray[np.float32]:
    """Run the float model on NV12 images.

    Returns:
        Logits, float32 of shape (images, classes).
    """
    found = []
    for number, sample in enumerate(samples):
        if should_stop():
            raise Stopped
        assert sample.nv12 is not None, "images are evaluated, not arrays"
        found.append(inputs.source.model.runtime.infer(sample.nv12))
        on_progress("running the float model", (number + 1) / len(samples))
    return np.stack(found)


def quantized_logits(
    built: Built,
    samples: Sequence[Sample],
    *,
    use_cache: bool = True,
    on_progress: Callable[[str, float], None] = lambda step, share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[NDArray[np.float32], bool]:
    """Run the quantised model on NV12 images, with the integers of the board.

    Returns:
        Logits, float32 of shape (images, classes), and whether the cache had them.
    """
    place = cache_folder(built.plan.key) / f"logits-{_samples_key(samples)}.npy"
    if use_cache:
        with suppress(OSError, ValueError):
            known: NDArray[np.float32] = np.load(place, allow_pickle=False)
            if len(known) == len(samples):
                return known, True
    nv12 = np.stack([each.nv12 for each in samples if each.nv12 is not None])
    logits = run_quantized(
        built.result.quantized,
        nv12,
        on_progress=lambda step, share: on_progress("running the quantised model", share),
        should_stop=should_stop,
    )
    if use_cache:
        with suppress(Efv2Error), open_atomic_binary(place) as file:  # it is only a cache
            np.save(file, logits)
    return logits, False


def _samples_key(samples: Sequence[Sample]) -> str:
    return digest_text(digest(samples))[:_KEPT_DIGITS]


def compare(
    inputs: Inputs,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    *,
    cached: bool = False,
) -> Fidelity:
    """Compare the logits of both models, float32 of shape (images, classes)."""
    model = inputs.source.model
    known = known_classes(inputs, inputs.evaluation)
    changes = [
        Change(
            sample, cosine(one, other), _answer(one, model.labels), _answer(other, model.labels),
            class_id,
        )
        for sample, one, other, class_id in zip(
            inputs.evaluation, before, after, known, strict=True
        )
    ]  # fmt: skip
    agreed = sum(each.before.class_id == each.after.class_id for each in changes)
    changes.sort(key=lambda each: each.cosine)
    return Fidelity(
        inputs.evaluation_path,
        tuple(changes),
        np.array([each.cosine for each in changes]),
        agreed,
        wilson(agreed, len(changes)),
        _accuracy(changes),
        cached,
    )


def known_classes(inputs: Inputs, samples: Sequence[Sample]) -> list[int | None]:
    """Find the class of each image by its folder or name, as `efv2 evaluate` does."""
    names = ImageClasses(Classes.of(inputs.source.model))
    found: list[int | None] = []
    for sample in samples:
        try:
            found.append(names.class_of(sample.name))
        except Efv2Error:  # a folder whose name two classes have, or an index beyond the classes
            found.append(None)
    return found


def _answer(logits: NDArray[np.float32], labels: Sequence[str]) -> Answer:
    best = int(logits.argmax())
    shifted = np.exp(logits.astype(np.float64) - float(logits[best]))
    return Answer(best, labels[best], float(1 / shifted.sum()))


def _accuracy(changes: Sequence[Change]) -> Accuracy | None:
    known = [each for each in changes if each.class_id is not None]
    if not known:
        return None
    count = len(known)
    right = [
        (each.before.class_id == each.class_id, each.after.class_id == each.class_id)
        for each in known
    ]
    before, after = (sum(each[side] for each in right) for side in (0, 1))
    lost = sum(one and not other for one, other in right)
    won = sum(other and not one for one, other in right)
    return Accuracy(
        count,
        (before / count, wilson(before, count)),
        (after / count, wilson(after, count)),
        ((before - after) / count, paired_difference(lost, won, count)),
        mcnemar(lost, won),
    )
