"""The options of a training run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from efv2_ros.models.efficientformerv2.graph import IMAGE_SIDE, Size

Precision = Literal["auto", "bf16", "fp32"]

FROM_SCRATCH, IMAGENET, CARDS, IF_POSSIBLE = "none", "imagenet", "cards", "auto"
"""Weights that are no file: none at all; timm's, which are downloaded; those of the s0 that is in
the package; the best of these that can be had."""


@dataclass(frozen=True)
class TrainingOptions:
    """What a run does. All but the last group decide its result.

    Attributes:
        size: Size of the network.
        weights: Weights to start from: a safetensors file, a name on the Hugging Face hub,
            `imagenet` for timm's of this size, `cards` for the s0 that is in the package, `none`,
            or `auto`: the first of these that can be had.
        epochs: Number of times that all photos are shown.
        small_epochs: Number of these, the first ones, in which photos are shown at `small_side`.
        small_side: Side of these photos in pixels, a multiple of 32 and at most 224.
        batch_size: Photos in a step, over all processes.
        learning_rate: Peak of the learning rate, after a warm-up and before the cosine's fall.
        weight_decay: Of AdamW.
        warmup_epochs: Epochs in which the learning rate rises; may be a fraction.
        drop_path: Probability with which a block of the last stage is left out.
        crop_scale: Smallest share of a photo's area that a random crop keeps, in (0, 1].
        flip: Whether photos are mirrored at random; not where left and right differ.
        augment: timm's description of RandAugment; empty for none.
        mixup: Alpha of mixup's beta distribution; 0 for none.
        smoothing: Label smoothing.
        ema_decay: Decay of the moving average of the weights, which is the result; 0 for none.
        balance: Whether each class is shown equally often.
        val_share: Share of photos set apart for validation where the data set does not say.
        seed: Seed of everything random.
        precision: Of the arithmetic: bf16 where the processor has it, or as given.
        workers: Processes that read photos.
        checkpoint_minutes: Minutes between checkpoints, which there are after each epoch too.
    """

    size: Size = "s0"
    weights: str = IF_POSSIBLE
    epochs: int = 30
    small_epochs: int = 0
    small_side: int = 128
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    drop_path: float = 0.0
    crop_scale: float = 0.35
    flip: bool = True
    augment: str = "rand-m6-n2-mstd0.5"
    mixup: float = 0.1
    smoothing: float = 0.1
    ema_decay: float = 0.9998
    balance: bool = False
    val_share: float = 0.1
    seed: int = 0
    precision: Precision = "auto"
    workers: int = 2
    checkpoint_minutes: float = 5.0

    def side(self, epoch: int) -> int:
        """Side in pixels of the photos of an epoch, counted from 0."""
        return self.small_side if epoch < self.small_epochs else IMAGE_SIDE

    def identity(self) -> dict[str, Any]:
        """The options that decide the result: a run goes on only with the same."""
        fields = dataclasses.asdict(self)
        if Path(self.weights).is_file():
            fields["weights"] = str(Path(self.weights).absolute())
        return {name: fields[name] for name in fields if name not in _INDIFFERENT}


_INDIFFERENT = ("workers", "checkpoint_minutes")
