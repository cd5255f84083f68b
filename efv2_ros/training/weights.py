"""Weights to start from: a file, one on the Hugging Face hub, which is kept, or the package's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from efv2_ros.models.catalog import Catalog
from efv2_ros.models.download import DownloadProgress, DownloadStoppedError, download
from efv2_ros.models.efficientformerv2.builder import load_state
from efv2_ros.models.efficientformerv2.graph import Size
from efv2_ros.models.inputs import expand_user
from efv2_ros.models.modelfile import ModelError
from efv2_ros.resources import cache_dir
from efv2_ros.training.errors import TrainingError
from efv2_ros.training.options import CARDS, FROM_SCRATCH, IF_POSSIBLE, IMAGENET

_REPOSITORY = "timm/efficientformerv2_{size}.snap_dist_in1k"
_FILE = "model.safetensors"
_HUB = "https://huggingface.co"
_FROM_CARDS = "starting from this package's network of 100 cards"
_FROM_SCRATCH = "starting from random weights"
_ATTEMPTS = 2  # without a network, `auto` should begin soon


def find_weights(
    weights: str,
    size: Size,
    *,
    on_progress: DownloadProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[Path | None, str]:
    """Find or download weights.

    `$HF_ENDPOINT` is a mirror of the hub, as for Hugging Face's own tools.

    Args:
        weights: A safetensors file; a repository on the hub, such as
            `timm/efficientformerv2_s0.snap_dist_in1k`; `imagenet` for this one of `size`; `cards`
            for the s0 that is in the package; `none`; or `auto` for the first of `imagenet`,
            `cards` and `none` that can be had.
        size: Size of the network.
        on_progress: See `download`.
        should_stop: See `download`.

    Returns:
        The file, or None to start from scratch; and where it is from, as a sentence.

    Raises:
        TrainingError: They cannot be had.
        DownloadStoppedError: `should_stop` returned True.
    """
    if weights == FROM_SCRATCH:
        return None, _FROM_SCRATCH
    if weights == CARDS:
        return _packaged(), _FROM_CARDS
    path = expand_user(weights)
    if path.is_file():
        return path, f"starting from {path}"
    if weights not in (IMAGENET, IF_POSSIBLE) and (
        weights.count("/") != 1 or path.suffix == ".safetensors" or weights.startswith((".", "~"))
    ):
        raise TrainingError(
            f"there is no file {weights}, and it is no repository such as "
            f"{_REPOSITORY.format(size=size)}"
        )
    repository = weights if "/" in weights else _REPOSITORY.format(size=size)
    try:
        return (
            _fetch(repository, size, on_progress, should_stop),
            f"starting from {repository}",
        )
    except DownloadStoppedError:
        raise
    except ModelError as error:
        if weights == IF_POSSIBLE:
            found, said = (_packaged(), _FROM_CARDS) if size == "s0" else (None, _FROM_SCRATCH)
            return found, f"{said}, since {repository} cannot be had: {error}"
        raise TrainingError(
            f"the weights {repository} cannot be had ({error}): give a file, or `--weights none` "
            "to train from scratch"
        ) from error


def _packaged() -> Path:
    """The weights of the network that is in the package."""
    path = Catalog.load()[CARDS].weights
    assert path is not None
    return path


def _fetch(
    repository: str,
    size: Size,
    on_progress: DownloadProgress | None,
    should_stop: Callable[[], bool] | None,
) -> Path:
    """Download a repository's weights, once."""
    hub = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HUB
    target = cache_dir() / "weights" / repository / _FILE

    def accept(part: Path) -> None:
        load_state(part, size)

    download(
        f"{hub}/{repository}/resolve/main/{_FILE}", target,
        accept=accept,
        needed=lambda: not target.is_file(), on_progress=on_progress, should_stop=should_stop,
        attempts=_ATTEMPTS,
    )  # fmt: skip
    return target
