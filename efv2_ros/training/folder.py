"""The folder of a run: weights, labels, catalog, metrics, curves, confusion and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from efv2_ros.evaluation.statistics import confusions
from efv2_ros.figures import matplotlib, save
from efv2_ros.files import open_atomic
from efv2_ros.models.catalog import IMAGENET_MEAN, IMAGENET_SCALE
from efv2_ros.models.efficientformerv2.graph import IMAGE_SIDE
from efv2_ros.training.errors import TrainingError
from efv2_ros.training.options import TrainingOptions
from efv2_ros.training.samples import CROP_PCT

WEIGHTS, LABELS, CATALOG = "model.safetensors", "labels.json", "catalog.yaml"
METRICS, CURVES, CONFUSION, CARD = "metrics.jsonl", "curves.png", "confusion.png", "README.md"
OPTIONS, CHECKPOINTS = "run.json", "checkpoints"

_MAX_NAMED = 60
"""Classes up to which the confusion matrix names them."""


@dataclass
class Metrics:
    """What is measured after an epoch.

    Attributes:
        epoch: Counted from 1.
        side: Side of the photos in pixels.
        learning_rate: At its end.
        training_loss: Mean over its steps; with label smoothing and mixup.
        loss: Mean cross entropy over the photos to validate with.
        top1: Share of these whose class comes first, 0..1.
        top5: Share of these whose class is among the first five.
        seconds: Time it took.
    """

    epoch: int
    side: int
    learning_rate: float
    training_loss: float
    loss: float
    top1: float
    top5: float
    seconds: float


@dataclass
class RunFolder:
    """Writes and reads the files of a run.

    Attributes:
        path: The folder.
        name: The model's name in the catalog.
        classes: Names of the classes.
        rows: Metrics of the epochs so far.
    """

    path: Path
    name: str
    classes: Sequence[str]
    rows: list[Metrics] = field(default_factory=list)

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Make the folder, or see that its run was made with the same options and data.

        Raises:
            TrainingError: The folder holds another run, or something else.
        """
        file = self.path / OPTIONS
        wanted = json.loads(json.dumps(identity))
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            if found != wanted:
                changed = [key for key in wanted if found.get(key) != wanted[key]]
                said = ", ".join(f"{k} was {found.get(k)}, not {wanted[k]}" for k in changed[:3])
                raise TrainingError(
                    f"{self.path} holds a run with other options or photos ({said}): repeat those "
                    "to go on with it, or give another --out"
                )
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise TrainingError(f"{self.path} is there already, and holds no run of efv2 train")
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_json(OPTIONS, wanted)  # first: with it, the folder is known as a run's
        (self.path / CHECKPOINTS).mkdir(exist_ok=True)
        self._write_json(LABELS, list(self.classes))
        with open_atomic(self.path / CATALOG) as stream:
            yaml.safe_dump(self._catalog(), stream, sort_keys=False)

    def _catalog(self) -> dict[str, Any]:
        entry = {
            "input": {"height": IMAGE_SIDE, "width": IMAGE_SIDE},
            "classes": len(self.classes),
            "mean": list(IMAGENET_MEAN),
            "scale": list(IMAGENET_SCALE),
            "nv12_range": "full",
            "crop_pct": CROP_PCT,
            "labels": LABELS,
            "weights": WEIGHTS,
        }
        return {"models": {self.name: entry}}

    def write_metrics(self) -> None:
        """Write the metrics so far, a line for each epoch."""
        with open_atomic(self.path / METRICS) as stream:
            for row in self.rows:
                stream.write(json.dumps(vars(row)) + "\n")

    def read_metrics(self, epochs: int) -> None:
        """Read the metrics of the first epochs; later ones will be measured again."""
        self.rows = []
        if (self.path / METRICS).is_file():
            lines = (self.path / METRICS).read_text(encoding="utf-8").splitlines()
            self.rows = [Metrics(**json.loads(line)) for line in lines[:epochs]]

    def write_curves(self) -> None:
        """Draw losses, accuracy and learning rate over the epochs."""
        figure = matplotlib().figure.Figure(figsize=(9, 3.6), layout="constrained")
        losses, accuracy = figure.subplots(1, 2)
        epochs = [row.epoch for row in self.rows]
        losses.plot(epochs, [row.training_loss for row in self.rows], label="training")
        losses.plot(epochs, [row.loss for row in self.rows], label="validation")
        losses.set(xlabel="epoch", ylabel="loss")
        losses.legend()
        accuracy.plot(epochs, [100 * row.top1 for row in self.rows], label="top-1")
        accuracy.plot(epochs, [100 * row.top5 for row in self.rows], label="top-5")
        accuracy.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(0, 101))
        accuracy.legend(loc="lower right")
        for axes in (losses, accuracy):
            axes.grid(alpha=0.3)
        save(figure, self.path / CURVES)

    def write_confusion(self, confusion: NDArray[np.int64]) -> None:
        """Draw the confusion matrix: rows are true classes, columns predicted ones."""
        named = len(self.classes) <= _MAX_NAMED
        side = 4.5 + 0.16 * min(len(self.classes), 100)
        figure = matplotlib().figure.Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots()
        shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="predicted", ylabel="true")
        if named:
            places = range(len(self.classes))
            axes.set_xticks(places, self.classes, rotation=90, fontsize=7)
            axes.set_yticks(places, self.classes, fontsize=7)
        save(figure, self.path / CONFUSION)

    def write_card(
        self,
        options: TrainingOptions,
        start: str,
        counts: tuple[int, int],
        best: Metrics,
        interval: tuple[float, float],
        confusion: NDArray[np.int64],
    ) -> None:
        """Write the model card.

        Args:
            options: Of the run.
            start: What it started from, as a sentence.
            counts: Number of photos to train with and to validate with.
            best: Metrics of the epoch whose weights these are.
            interval: 95 % interval of its top-1 accuracy, 0..1.
            confusion: Confusion matrix of these weights.
        """
        low, high = (100 * each for each in interval)
        lines = [
            f"# {self.name}",
            f"EfficientFormerV2-{options.size.upper()} for {len(self.classes)} classes, made with "
            "`efv2 train`.",
            "",
            "| | |",
            "| --- | --- |",
            f"| input | {IMAGE_SIDE}x{IMAGE_SIDE}, full-range NV12, `fit: crop` |",
            f"| photos | {counts[0]:,} to train with, {counts[1]:,} to validate with |",
            f"| weights | {start}; epoch {best.epoch} of {options.epochs}"
            f"{', moving average' if options.ema_decay else ''} |",
            f"| top-1, validation | {100 * best.top1:.2f} % (95 %: {low:.2f} to {high:.2f}) |",
            f"| top-5, validation | {100 * best.top5:.2f} % |",
            f"| loss, validation | {best.loss:.4f} |",
            "",
            "The epoch was chosen by the same photos, which flatters the accuracy a little: "
            "`efv2 evaluate` measures it on photos that were never used.",
            "",
            *self._confusions(confusion),
            "## Training",
            "```",
            *(f"{key}: {value}" for key, value in options.identity().items()),
            "```",
            "",
            f"![losses and accuracy]({CURVES})",
            "",
            f"![confusion matrix]({CONFUSION})",
            "",
            "## Classes",
            ", ".join(self.classes),
            "",
        ]
        with open_atomic(self.path / CARD) as stream:
            stream.write("\n".join(lines))

    def _confusions(self, confusion: NDArray[np.int64], count: int = 10) -> list[str]:
        """The most frequent errors, as a table."""
        rows = [
            f"| {self.classes[true]} | {self.classes[predicted]} | {images} |"
            for true, predicted, images in confusions(confusion)[:count]
        ]
        if not rows:
            return []
        return ["## Most frequent errors", "| true | predicted | photos |", "| --- | --- | --- |",
                *rows, ""]  # fmt: skip

    def _write_json(self, name: str, value: Any) -> None:
        with open_atomic(self.path / name) as stream:
            json.dump(value, stream, indent=1, ensure_ascii=False)
            stream.write("\n")
