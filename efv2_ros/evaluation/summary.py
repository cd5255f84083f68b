"""Figures of an evaluation as plain values, for JSON and for tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efv2_ros.classify.model import Model
from efv2_ros.evaluation.checkpoint import Answer
from efv2_ros.evaluation.classes import EvaluationError
from efv2_ros.evaluation.dataset import Image
from efv2_ros.evaluation.evaluation import Evaluation
from efv2_ros.evaluation.statistics import (
    Interval,
    confusion_matrix,
    confusions,
    mcnemar,
    paired_difference,
    wilson,
)

_PUBLISHED = {"onnx": "float_top1_percent", "bin": "quantised_top1_percent"}
"""Key of the catalog's published accuracy, by model format: ONNX files are the float models."""


def summarize(evaluation: Evaluation) -> dict[str, Any]:
    """Compute all figures of an evaluation, in JSON's types.

    The same answers give the same figures.

    Raises:
        EvaluationError: No image has an answer, or SciPy is missing.
    """
    dataset, models, answers = evaluation.dataset, evaluation.models, evaluation.answers
    images = [each for each in dataset.images if each.name in answers]
    if not images:
        raise EvaluationError(f"none of the {len(dataset.images):,} images could be classified")
    found = [answers[each.name] for each in images]
    summary: dict[str, Any] = {
        "settings": evaluation.checkpoint.description,
        "images": len(images),
        "failed": [
            {"file": each.image.name, "cause": each.cause, "reason": each.reason}
            for each in evaluation.failures
        ],
        "unknown": list(dataset.unknown),
        "unused": list(dataset.unused),
        "models": [
            {
                **_description(model),
                **_accuracies(images, [each.best[index] for each in found], model),
            }
            for index, model in enumerate(models)
        ],
    }
    if len(models) == 2:
        summary["comparison"] = _comparison(images, found, models)
    summary["answers"] = [
        {"file": image.name, "class_id": image.class_id, **answer._asdict()}
        for image, answer in zip(images, found, strict=True)
    ]
    return summary


def _description(model: Model) -> dict[str, Any]:
    info, file = model.runtime.info, model.file
    published = None if file.untrained else file.spec.published.get(_PUBLISHED[file.format])
    return {
        "model": model.name,
        "file": str(file.path),
        "format": file.format,
        "untrained": file.untrained,
        "runtime": info.name,
        "version": info.version,
        "device": info.device,
        "classes": info.classes,
        "published_top1_percent": published,
    }


def _accuracies(
    images: Sequence[Image], best: Sequence[tuple[int, ...]], model: Model
) -> dict[str, Any]:
    top1, top5 = _is_right(images, best)
    class_ids = [each.class_id for each in images]
    matrix = confusion_matrix(class_ids, [each[0] for each in best], model.runtime.info.classes)
    totals = matrix.sum(axis=1)
    by_class = [
        {
            "class_id": class_id,
            "label": model.labels[class_id],
            **_proportion(int(matrix[class_id, class_id]), int(totals[class_id])),
        }
        for class_id in np.flatnonzero(totals).tolist()
    ]
    return {
        "top1": _proportion(int(top1.sum()), len(images)),
        "top5": _proportion(int(top5.sum()), len(images)),
        "mean_of_classes_percent": math.fsum(each["percent"] for each in by_class) / len(by_class),
        "by_class": by_class,
        "confusions": [
            {
                "class_id": class_id,
                "label": model.labels[class_id],
                "taken_for": other,
                "taken_for_label": model.labels[other],
                "images": count,
            }
            for class_id, other, count in confusions(matrix)
        ],
    }


def _is_right(
    images: Sequence[Image], best: Sequence[tuple[int, ...]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which images have their class first, and which have it among the best."""
    pairs = list(zip(images, best, strict=True))
    return (
        np.array([image.class_id == each[0] for image, each in pairs]),
        np.array([image.class_id in each for image, each in pairs]),
    )


def _comparison(
    images: Sequence[Image], answers: Sequence[Answer], models: Sequence[Model]
) -> dict[str, Any]:
    """Compare the first model with the second."""
    first, second = (
        _is_right(images, [each.best[index] for each in answers]) for index in range(2)
    )
    agreed = sum(each.best[0][0] == each.best[1][0] for each in answers)
    cosines = [each.cosine or 0.0 for each in answers]
    lowest = cosines.index(min(cosines))
    is_quantised = [each.file.format for each in models] == ["onnx", "bin"]
    return {
        "difference": "float minus quantised" if is_quantised else "first minus second",
        "top1": _difference(first[0], second[0]),
        "top5": _difference(first[1], second[1]),
        "same_top1": _proportion(agreed, len(images)),
        "cosine": {
            "mean": math.fsum(cosines) / len(cosines),
            "min": cosines[lowest],
            "min_file": images[lowest].name,
        },
    }


def _difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, Any]:
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return {
        "percent": 100 * (only_first - only_second) / len(first),
        "interval_percent": _percents(paired_difference(only_first, only_second, len(first))),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "mcnemar_p": mcnemar(only_first, only_second),
    }


def _proportion(right: int, images: int) -> dict[str, Any]:
    return {
        "right": right,
        "images": images,
        "percent": 100 * right / images,
        "interval_percent": _percents(wilson(right, images)),
    }


def _percents(interval: Interval) -> list[float]:
    return [100 * each for each in interval]
