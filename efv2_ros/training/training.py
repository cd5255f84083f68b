"""The training loop: with Accelerate on any number of processes, resumable at any step."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader

from efv2_ros.evaluation.statistics import wilson
from efv2_ros.models.catalog import IMAGENET_MEAN, IMAGENET_SCALE
from efv2_ros.models.download import DownloadProgress
from efv2_ros.models.efficientformerv2.graph import IMAGE_SIDE
from efv2_ros.runtimes.base import ImageInput
from efv2_ros.signals import STOP_SIGNALS
from efv2_ros.training.checkpoints import Checkpoints, Position
from efv2_ros.training.errors import TrainingError
from efv2_ros.training.folder import CHECKPOINTS, WEIGHTS, Metrics, RunFolder
from efv2_ros.training.network import Network, load_weights, save_weights
from efv2_ros.training.options import TrainingOptions
from efv2_ros.training.photos import Photos
from efv2_ros.training.samples import EpochSampler, Sample, TrainingSamples, ValidationSamples
from efv2_ros.training.validation import Scores, validate
from efv2_ros.training.weights import find_weights

OnProgress = Callable[["Progress"], None]

_MIN_RATE = 0.01  # of the peak learning rate, at the end
_WARMUP_RATE = 0.001  # of the peak, at the start
_MAX_NORM = 5.0  # of the gradient


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        epoch: The running epoch, counted from 1.
        done: Photos of this epoch that were shown.
        total: Photos of an epoch.
        loss: Mean loss of the epoch so far.
    """

    epoch: int
    done: int
    total: int
    loss: float


class Training:
    """A run, from its first step or from where it was interrupted.

    Args:
        photos: The data set.
        options: The options.
        folder: The run's folder.
        say: Prints a sentence.
        should_stop: Polled while weights are downloaded.
        on_download: Called with the bytes of them that were received and that are expected.

    Raises:
        TrainingError: The folder holds something else, or the weights cannot be had.
        DownloadStoppedError: `should_stop` returned True.
    """

    def __init__(
        self,
        photos: Photos,
        options: TrainingOptions,
        folder: RunFolder,
        say: Callable[[str], None],
        should_stop: Callable[[], bool],
        on_download: DownloadProgress,
    ) -> None:
        self.photos = photos
        self.options = options
        self.folder = folder
        self.accelerator = _accelerator(options)
        self._say = say if self.accelerator.is_main_process else lambda _: None
        # The main process first: the others find what it has made.
        with self.accelerator.main_process_first():
            folder.begin(self._identity())
        torch.manual_seed(options.seed)
        image = ImageInput(IMAGE_SIDE, IMAGE_SIDE, "full", IMAGENET_MEAN, IMAGENET_SCALE)
        self.network = Network(options.size, len(photos.classes), image, options.drop_path).to(
            memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        self._unreadable: set[int] = set()
        self.checkpoints = Checkpoints(folder.path / CHECKPOINTS, self.accelerator)
        saved = self.checkpoints.position()
        self.position = saved or Position()
        if not self.position.start:
            self.position.start = self._load_weights(should_stop, on_download)
            self._say(self.position.start)
        self._make()
        if saved is not None:
            self.checkpoints.load()
            folder.read_metrics(self.position.epoch)
            self._say(f"going on in epoch {self.position.epoch + 1}")

    def _identity(self) -> dict[str, Any]:
        """What decides the result: options and photos."""
        photos = hashlib.sha256()
        for part in (self.photos.training, self.photos.validation):
            for each in part:
                photos.update(f"{each.path.absolute()}\0{each.class_id}\n".encode())
            photos.update(b"\n")
        return {**self.options.identity(), "photos": photos.hexdigest()}

    def _load_weights(self, should_stop: Callable[[], bool], on_download: DownloadProgress) -> str:
        """Start from the weights of the options, and return what was done, as a sentence."""
        options = self.options
        with self.accelerator.main_process_first():
            path, said = find_weights(
                options.weights, options.size, on_progress=on_download, should_stop=should_stop
            )
        if path is not None and load_weights(self.network, path):
            said += ", with a new head for these classes"
        return said

    def _make(self) -> None:
        options, photos = self.options, self.photos
        share = self.accelerator.num_processes
        # Mixup pairs the photos of a process, whose number is even therefore.
        batch = min(options.batch_size, len(photos.training)) // (2 * share) * (2 * share)
        if not batch:
            raise TrainingError(f"{2 * share} photos are the least to train with")
        self.sampler = EpochSampler(photos.training, options.seed, options.balance)
        loader = DataLoader(
            TrainingSamples(photos.training, options), batch, sampler=self.sampler,
            drop_last=True, num_workers=options.workers,
            persistent_workers=options.workers > 0, collate_fn=_collate,
            worker_init_fn=_leave_signals,
        )  # fmt: skip
        optimizer = create_optimizer_v2(
            self.network, "adamw", options.learning_rate, options.weight_decay
        )
        self.ema = ModelEmaV3(self.network, options.ema_decay, use_warmup=True)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            self.network, optimizer, loader
        )
        self.ema.to(self.accelerator.device)
        self.accelerator.register_for_checkpointing(self.ema)
        self.steps = len(self.loader)
        self.batch = batch
        warmup = round(options.warmup_epochs * self.steps)
        self.scheduler = CosineLRScheduler(
            self.optimizer, max(options.epochs * self.steps, 1), options.learning_rate * _MIN_RATE,
            warmup_t=warmup, warmup_lr_init=options.learning_rate * _WARMUP_RATE,
            warmup_prefix=False, t_in_epochs=False,
        )  # fmt: skip
        self.mixup = Mixup(
            options.mixup or 1.0, prob=float(options.mixup > 0),
            label_smoothing=options.smoothing, num_classes=len(photos.classes),
        )  # fmt: skip

    # The run

    def run(self, should_stop: Callable[[], bool], on_progress: OnProgress) -> bool:
        """Train to the end, or until told to stop, with a checkpoint then.

        Args:
            should_stop: Polled at every step.
            on_progress: Called after every step, in the main process.

        Returns:
            Whether the run is at its end.

        Raises:
            FrameError: No photo of a class can be read.
            TrainingError: None of those to validate with can be.
            FileWriteError: A file cannot be written.
        """
        while self.position.epoch < self.options.epochs:
            if not self._epoch(should_stop, on_progress):
                return False
        return True

    def _epoch(self, should_stop: Callable[[], bool], on_progress: OnProgress) -> bool:
        position = self.position
        side = self.options.side(position.epoch)
        self.network.resize(side)
        cast("Network", self.ema.module).resize(side)
        self.sampler.epoch = position.epoch
        self.model.train()
        began = time.monotonic() - position.seconds
        saved = time.monotonic()
        for samples in self._remaining(position.step):
            self._note_unreadable(samples)
            position.loss += self._step(samples)
            position.step += 1
            position.seconds = time.monotonic() - began
            if self.accelerator.is_main_process:
                done, loss = position.step * self.batch, position.loss / position.step
                on_progress(Progress(position.epoch + 1, done, self.steps * self.batch, loss))
            if self._is_stopped(should_stop):
                self.checkpoints.save(self.position)
                return False
            if time.monotonic() > saved + 60 * self.options.checkpoint_minutes:
                self.checkpoints.save(self.position)
                saved = time.monotonic()
        return self._end_epoch(should_stop)

    def _remaining(self, step: int) -> Iterator[Sample]:
        """The epoch's batches from a step on."""
        loader = self.accelerator.skip_first_batches(self.loader, step) if step else self.loader
        return iter(loader)

    def _note_unreadable(self, samples: Sample) -> None:
        """Name each photo that could not be read, once."""
        unreadable = cast("Tensor", samples.unreadable)
        for number in unreadable[unreadable >= 0].tolist():
            if number not in self._unreadable:
                self._unreadable.add(number)
                path = self.photos.training[number].path
                self._say(f"{path} cannot be read: another photo of its class stands for it")

    def _step(self, samples: Sample) -> float:
        """Take one step and return its loss, the mean over all processes."""
        number = self.position.epoch * self.steps + self.position.step
        # Each step's random choices are its own, whatever was before it.
        seed = [self.options.seed, number, self.accelerator.process_index]
        (state,) = np.random.SeedSequence(seed).generate_state(1)
        np.random.seed(state)  # noqa: NPY002 - timm's Mixup draws from it
        torch.manual_seed(int(state))
        images = self._network().images(samples.nv12)
        images, targets = self.mixup(images, samples.class_id)
        loss = SoftTargetCrossEntropy()(self.model(images).float(), targets)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), _MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step_update(number + 1)
        if self.options.ema_decay:
            self.ema.update(self._network(), number)
        return float(self.accelerator.reduce(loss.detach(), "mean"))

    def _network(self) -> Network:
        return cast("Network", self.accelerator.unwrap_model(self.model))

    def _result(self) -> Network:
        """The network that is the result: the moving average, if there is one."""
        return cast("Network", self.ema.module) if self.options.ema_decay else self._network()

    def _is_stopped(self, should_stop: Callable[[], bool]) -> bool:
        """Whether any process was told to stop: all stop after the same step."""
        if should_stop():
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def _end_epoch(self, should_stop: Callable[[], bool]) -> bool:
        """Validate and write the results; return whether it was not stopped."""
        position = self.position
        scores = self._validate(self.options.side(position.epoch), should_stop)
        if scores is None:
            self.checkpoints.save(position)
            return False
        row = Metrics(
            epoch=position.epoch + 1,
            side=self.options.side(position.epoch),
            learning_rate=self.optimizer.param_groups[0]["lr"],
            training_loss=position.loss / max(self.steps, 1),
            loss=scores.loss,
            top1=scores.top1,
            top5=scores.top5,
            seconds=round(position.seconds, 3),
        )
        rows = self.folder.rows
        is_best = position.best < 0 or self._rank(row) >= self._rank(rows[position.best])
        rows.append(row)
        if is_best:
            position.best = position.epoch
        if self.accelerator.is_main_process:
            if is_best:
                self._write_result(scores)
            self.folder.write_metrics()
            self.folder.write_curves()
        position.epoch += 1
        position.step, position.loss, position.seconds = 0, 0.0, 0.0
        self._say(
            f"epoch {row.epoch} of {self.options.epochs}: {row.side} pixels, loss "
            f"{row.training_loss:.3f}, validation {row.loss:.3f}, top-1 {100 * row.top1:.2f} %, "
            f"top-5 {100 * row.top5:.2f} %, {row.seconds:.0f} s"
        )
        if scores.unreadable:
            self._say(f"{scores.unreadable} photos to validate with cannot be read")
        self.checkpoints.save(position)
        return True

    @staticmethod
    def _rank(row: Metrics) -> tuple[int, float]:
        """Weights of the full side come before all others; then accuracy counts."""
        return row.side, row.top1

    def _write_result(self, scores: Scores) -> None:
        row = self.folder.rows[-1]
        count = int(scores.confusion.sum())
        interval = wilson(round(row.top1 * count), count)
        # One entry: safetensors writes several in any order, and the file should be the same.
        metadata = {"classes": json.dumps(list(self.photos.classes))}
        save_weights(self._result(), self.folder.path / WEIGHTS, metadata)
        self.folder.write_confusion(scores.confusion)
        counts = (len(self.photos.training), len(self.photos.validation))
        self.folder.write_card(
            self.options, self.position.start, counts, row, interval, scores.confusion
        )

    def _validate(self, side: int, should_stop: Callable[[], bool]) -> Scores | None:
        """Measure the result on the photos that were set apart; None if told to stop."""
        loader = DataLoader(
            ValidationSamples(self.photos.validation, side), self.batch,
            num_workers=self.options.workers, collate_fn=_collate, worker_init_fn=_leave_signals,
        )  # fmt: skip
        return validate(
            self.accelerator, self._result(), self.accelerator.prepare(loader),
            len(self.photos.classes), lambda: self._is_stopped(should_stop),
        )  # fmt: skip


def _accelerator(options: TrainingOptions) -> Accelerator:
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if _has_bf16() else "fp32"
    return Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no",
        # Each process gets its share of a batch, so that a step is the same with any number.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
    )


def _has_bf16() -> bool:
    """Whether the processor computes in bfloat16 rather than imitating it."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _leave_signals(worker: int) -> None:
    """Ignore SIGINT and SIGTERM in a worker: the terminal sends them to all processes."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _collate(samples: list[Sample]) -> Sample:
    return Sample(
        torch.stack([each.nv12 for each in samples]),
        torch.tensor([each.class_id for each in samples]),  # type: ignore[arg-type]
        torch.tensor([each.unreadable for each in samples]),  # type: ignore[arg-type]
    )


@contextmanager
def ended(training: Training) -> Iterator[Training]:
    """Leave the group of processes in order, whatever happens."""
    try:
        yield training
    finally:
        training.accelerator.end_training()
