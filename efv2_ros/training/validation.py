"""Measures a network on the photos that were set apart, through the node's way into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from efv2_ros.evaluation.statistics import confusion_matrix
from efv2_ros.training.errors import TrainingError
from efv2_ros.training.network import Network


class Scores(NamedTuple):
    """Result of a validation.

    Attributes:
        loss: Mean cross entropy.
        top1: Share of photos whose class comes first, 0..1.
        top5: Share of photos whose class is among the first five.
        confusion: Photos by true and predicted class.
        unreadable: Photos that could not be read; they are not counted.
    """

    loss: float
    top1: float
    top5: float
    confusion: NDArray[np.int64]
    unreadable: int


def validate(
    accelerator: Accelerator,
    network: Network,
    loader: Any,
    classes: int,
    is_stopped: Callable[[], bool],
) -> Scores | None:
    """Measure a network.

    Args:
        accelerator: The processes that share the work.
        network: The network, set to the side of the photos.
        loader: Batches of `ValidationSamples`, prepared by the accelerator.
        classes: Number of classes.
        is_stopped: Polled after each batch; ends the work in all processes.

    Returns:
        The scores; None if it was stopped.

    Raises:
        TrainingError: No photo can be read.
    """
    network.eval()
    losses: list[Tensor] = []
    ranks: list[Tensor] = []
    pairs: list[Tensor] = []
    unreadable = 0
    for samples in loader:
        with torch.no_grad(), accelerator.autocast():
            logits = network(network.images(samples.nv12)).float()
        loss = nn.functional.cross_entropy(logits, samples.class_id, reduction="none")
        own = logits.gather(1, samples.class_id[:, None])
        # An equal logit of another class counts against it.
        rank = (logits >= own).sum(1) - 1
        pair = torch.stack([samples.class_id, logits.argmax(1)], 1)
        gathered = accelerator.gather_for_metrics((loss, rank, pair, samples.unreadable))
        good = gathered[3] < 0
        unreadable += int((~good).sum())
        losses.append(gathered[0][good])
        ranks.append(gathered[1][good])
        pairs.append(gathered[2][good])
        if is_stopped():
            return None
    if not sum(map(len, pairs)):
        raise TrainingError("no photo that was set apart for validation can be read")
    true, predicted = torch.cat(pairs).cpu().numpy().T
    rank = torch.cat(ranks)
    return Scores(
        float(torch.cat(losses).double().mean()),
        float((rank < 1).double().mean()),
        float((rank < 5).double().mean()),
        confusion_matrix(true, predicted, classes),
        unreadable,
    )
