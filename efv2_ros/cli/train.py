"""`efv2 train`: from a folder of photos to a network that knows their classes."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from efv2_ros.cli.console import INTERRUPTED, download_bar, image_bar, messages, output
from efv2_ros.errors import Efv2Error
from efv2_ros.models.download import DownloadStoppedError
from efv2_ros.models.efficientformerv2.graph import IMAGE_SIDE, SIZES
from efv2_ros.signals import catch_stop
from efv2_ros.training.options import TrainingOptions
from efv2_ros.training.photos import find_photos

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from efv2_ros.training.training import Progress

_DEFAULTS = TrainingOptions()

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def _option(name: str, type: Any, help: str, **more: Any) -> Callable[[CommandT], CommandT]:
    """An option of the name and default of a training option."""
    default = getattr(_DEFAULTS, name)
    flag = name.replace("_", "-")
    declared = f"--{flag}/--no-{flag}" if type is bool else f"--{flag}"
    given = {} if type is bool else {"type": type}
    return click.option(declared, default=default, show_default=True, help=help, **given, **more)


def _side(context: click.Context, parameter: click.Parameter, value: int) -> int:
    if value % 32:
        raise click.BadParameter(f"{value} is not a multiple of 32")
    return value


_LINE_S = 60.0
"""Seconds between two lines on the progress, where no terminal shows a bar."""


class _Show:
    """Shows how far a run is."""

    def __init__(self, bar: Bar, epochs: int) -> None:
        self._bar = bar
        self._task = bar.add_task("training")
        self._epochs = epochs
        self._next = time.monotonic() + _LINE_S

    def __call__(self, progress: Progress) -> None:
        title = f"epoch {progress.epoch} of {self._epochs}, loss {progress.loss:.3f}"
        done, total = progress.done, progress.total
        self._bar.update(self._task, description=title, completed=done, total=total)
        if self._bar.disable and time.monotonic() > self._next:
            self._next = time.monotonic() + _LINE_S
            _say(f"{title}: {done:,} of {total:,} photos")


def _say(text: str, style: str = "") -> None:
    messages.print(text, style=style, soft_wrap=True)


@click.command()
@click.argument("source", metavar="DIR|LIST", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out", metavar="RUN", required=True, type=click.Path(path_type=Path),
    help="Folder of the run: weights, catalog, metrics. Repeat the command to go on with it.",
)  # fmt: skip
@click.option("--name", help="Name of the model in the catalog; default: the folder's name.")
@_option("size", click.Choice(SIZES), "Size of the network.")
@_option(
    "weights", str,
    "Weights to start from: a safetensors file, a name on the Hugging Face hub, `imagenet`, "
    "`cards`, `none`, or `auto`: timm's ImageNet weights where they can be fetched, else, for s0, "
    "this package's network of cards.", metavar="WEIGHTS",
)  # fmt: skip
@_option("epochs", click.IntRange(1), "How often all photos are shown.")
@_option("small_epochs", click.IntRange(0), "How many epochs, the first ones, use small photos.")
@_option(
    "small_side", click.IntRange(64, IMAGE_SIDE), "Side of small photos in pixels.", callback=_side
)
@_option("batch_size", click.IntRange(2), "Photos in a step, over all processes.")
@_option("learning_rate", click.FloatRange(0, min_open=True), "Peak of the learning rate.")
@_option("weight_decay", click.FloatRange(0), "Weight decay of AdamW.")
@_option("warmup_epochs", click.FloatRange(0), "Epochs in which the learning rate rises.")
@_option(
    "drop_path", click.FloatRange(0, 0.9), "Probability with which the last block is left out."
)
@_option(
    "crop_scale", click.FloatRange(0.01, 1), "Smallest share of a photo that a random crop keeps."
)
@_option("flip", bool, "Mirror photos at random; not where left and right differ.")
@_option("augment", str, "RandAugment in timm's words; empty for none.", metavar="WORDS")
@_option("mixup", click.FloatRange(0), "Strength of mixup; 0 for none.")
@_option("smoothing", click.FloatRange(0, 0.9), "Label smoothing.")
@_option("ema_decay", click.FloatRange(0, 1, max_open=True), "Decay of the weights' average.")
@_option("balance", bool, "Show each class equally often.")
@_option(
    "val_share", click.FloatRange(0, 0.9, min_open=True),
    "Share of photos set apart for validation, where DIR has no `val`.",
)  # fmt: skip
@_option("seed", click.IntRange(0, 2**32 - 1), "Seed of everything random.")
@_option(
    "precision", click.Choice(["auto", "bf16", "fp32"]), "bf16 where the processor has it, or not."
)
@_option("workers", click.IntRange(0), "Processes that read photos.")
@_option("checkpoint_minutes", click.FloatRange(0), "Minutes between checkpoints.")
def train(source: Path, out: Path, name: str | None, **given: Any) -> None:
    """Train EfficientFormerV2 on the photos of DIR, which has a folder for each class.

    DIR may also have `train` and `val`, with a folder for each class in both; LIST is a text file
    with a line `PATH,CLASS` or `PATH,CLASS,train|val` for each photo.

    Ctrl-C ends with a checkpoint; the same command goes on. `accelerate launch -m efv2_ros.cli
    train ...` runs it on several GPUs or machines.
    """
    options = dataclasses.replace(_DEFAULTS, **given)
    photos = find_photos(source, share=options.val_share, seed=options.seed)
    try:
        from efv2_ros.training.folder import RunFolder
        from efv2_ros.training.training import Training, ended
    except ImportError as error:
        raise Efv2Error(
            f"training needs packages that are not here ({error}): pip install torch torchvision "
            "timm accelerate onnx safetensors scipy matplotlib"
        ) from error
    folder = RunFolder(out, name or out.absolute().name, photos.classes)
    with catch_stop() as should_stop, download_bar() as on_download:
        try:
            begun = Training(photos, options, folder, _say, should_stop, on_download)
        except DownloadStoppedError:
            _say("interrupted")
            sys.exit(INTERRUPTED)
        with ended(begun) as training, image_bar() as bar:
            is_main = training.accelerator.is_main_process
            bar.disable = bar.disable or not is_main
            if is_main:
                for remark in photos.remarks:
                    _say(f"warning: {remark}", "yellow")
                count = training.accelerator.num_processes
                _say(
                    f"{len(photos.training):,} photos of {len(photos.classes)} classes to train "
                    f"with, {len(photos.validation):,} to validate with"
                    + (f", in {count} processes" if count > 1 else "")
                )
            is_at_end = training.run(should_stop, _Show(bar, options.epochs))
    if not is_at_end:
        if is_main:
            _say("stopped with a checkpoint: the same command goes on")
        sys.exit(INTERRUPTED)
    if is_main:
        best = folder.rows[training.position.best]
        output.print(
            f"{out}: top-1 {100 * best.top1:.2f} % of {len(photos.validation):,} photos, "
            f"epoch {best.epoch}", soft_wrap=True,
        )  # fmt: skip
        output.print(
            f"efv2 classify --catalog {out / 'catalog.yaml'} --size {folder.name} PHOTO",
            soft_wrap=True,
        )
