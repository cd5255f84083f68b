"""The checkpoints of a run: the last one is whole whenever the process or the power ends."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from efv2_ros.files import open_atomic

_LATEST, _POSITION = "latest.json", "position.json"


@dataclass
class Position:
    """Where a run stands; stored with each checkpoint.

    Attributes:
        epoch: The next step's epoch, counted from 0.
        step: The next step's number in this epoch.
        loss: Sum of the losses of the epoch's steps so far.
        seconds: Time the epoch has taken so far.
        best: Epoch of the best weights so far, counted from 0; -1 before the first.
        start: What the run started from, as a sentence.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    best: int = -1
    start: str = ""


class Checkpoints:
    """Writes and reads the checkpoints of a folder, of which the last is kept.

    Args:
        folder: The folder.
        accelerator: Has what is stored.
    """

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self._folder = folder
        self._accelerator = accelerator

    def position(self) -> Position | None:
        """Position of the last checkpoint; None before the first."""
        path = self._last()
        if path is None:
            return None
        return Position(**json.loads((path / _POSITION).read_text(encoding="utf-8")))

    def load(self) -> None:
        """Load the last checkpoint, if there is one, into what the accelerator has prepared."""
        path = self._last()
        if path is not None:
            self._accelerator.load_state(str(path))

    def save(self, position: Position) -> None:
        """Write a checkpoint beside the last one, which it replaces once it is whole."""
        name = f"{position.epoch:04}_{position.step:06}"
        target, part = self._folder / name, self._folder / f"{name}.part"
        if self._accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
        self._accelerator.wait_for_everyone()
        self._accelerator.save_state(str(part))
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            (part / _POSITION).write_text(json.dumps(vars(position)), encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
            with open_atomic(self._folder / _LATEST) as stream:
                json.dump(name, stream)
            for other in self._folder.iterdir():
                if other.is_dir() and other != target:
                    shutil.rmtree(other, ignore_errors=True)
        self._accelerator.wait_for_everyone()

    def _last(self) -> Path | None:
        latest = self._folder / _LATEST
        if not latest.is_file():
            return None
        name: str = json.loads(latest.read_text(encoding="utf-8"))
        return self._folder / name
