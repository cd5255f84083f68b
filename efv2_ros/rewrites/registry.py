"""All rewrites by name, and how to apply some of them to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efv2_ros.errors import Efv2Error
from efv2_ros.rewrites.folding import fold_attention_bias, fold_attention_scale
from efv2_ros.rewrites.head import head_as_convolution, merge_heads
from efv2_ros.rewrites.layout import (
    attention_nhwc,
    scores_per_head,
    softmax_rows,
    values_per_head,
)

if TYPE_CHECKING:
    from onnx import ModelProto


class RewriteError(Efv2Error):
    """A rewrite that cannot be applied; the message says why."""


@dataclass(frozen=True)
class Rewrite:
    """A change of a graph that keeps its results.

    Attributes:
        name: What recipes call it.
        description: One sentence: what it does and what it brings.
        apply: Changes a model in place, and gives the number of places changed.
    """

    name: str
    description: str
    apply: Callable[[ModelProto], int]


_ALL = (
    Rewrite(
        "merge_heads",
        "Makes one linear layer of the two heads whose mean is the output, "
        "which saves one of two large layers and lets the quantiser round once.",
        merge_heads,
    ),
    Rewrite(
        "head_as_convolution",
        "Folds the last BatchNorm into the linear layer and makes a pooling and a 1x1 convolution "
        "of them, so that one layer less is quantised; the output gets shape 1 x classes x 1 x 1.",
        head_as_convolution,
    ),
    Rewrite(
        "fold_attention_bias",
        "Adds the attention's bias behind the talking heads, together with their own bias, "
        "so that the scale before them can be folded.",
        fold_attention_bias,
    ),
    Rewrite(
        "fold_attention_scale",
        "Multiplies the attention's scale into weights that exist anyway, "
        "which saves a pass over the scores.",
        fold_attention_scale,
    ),
    Rewrite(
        "attention_nhwc",
        "Splits and joins the attention's heads in NHWC, the BPU's own layout, "
        "which saves the conversions that take a third of the time as exported.",
        attention_nhwc,
    ),
    Rewrite(
        "values_per_head",
        "Multiplies weights and values in a MatMul for each head, "
        "which takes a little less time and a little more memory traffic.",
        values_per_head,
    ),
    Rewrite(
        "scores_per_head",
        "Multiplies queries and keys in a MatMul for each head where talking heads follow, "
        "which takes a little less time and a little more memory traffic.",
        scores_per_head,
    ),
    Rewrite(
        "softmax_rows",
        "Gives each Softmax between talking heads its scores as one matrix of rows, "
        "which halves its time: eight heads fill a vector of the BPU badly.",
        softmax_rows,
    ),
)

REWRITES: Mapping[str, Rewrite] = {each.name: each for each in _ALL}
"""All rewrites by name, in the order in which they are applied."""


def rewrite(model: ModelProto, names: Sequence[str]) -> tuple[ModelProto, Mapping[str, int]]:
    """Apply rewrites to a copy of a model, in the order of `REWRITES`.

    Args:
        model: A model with a fixed input shape.
        names: Names of rewrites, in any order.

    Returns:
        The new model, and for each rewrite applied the number of places it changed.

    Raises:
        RewriteError: There is no rewrite of such a name.
    """
    if unknown := [name for name in names if name not in REWRITES]:
        raise RewriteError(f"there is no rewrite {unknown[0]!r}; there are {', '.join(REWRITES)}")
    changed = type(model)()
    changed.CopyFrom(model)
    return changed, {name: each.apply(changed) for name, each in REWRITES.items() if name in names}
