"""What an evaluation has found so far, kept in a file so that it can go on after an interruption.

JSON lines: first what is evaluated, then each image's answers, written as soon as they are there.
The file's name is a digest of the first line: another model, folder or option is another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from efv2_ros import __version__
from efv2_ros.classify.classifier import Classifier
from efv2_ros.evaluation.classes import EvaluationError
from efv2_ros.evaluation.dataset import Image
from efv2_ros.evaluation.truth import Truth
from efv2_ros.resources import cache_dir


class Answer(NamedTuple):
    """What the models said to an image.

    Attributes:
        best: For each model the ids of its best classes, best first.
        cosine: Of the two models' logits; None for one model.
    """

    best: tuple[tuple[int, ...], ...]
    cosine: float | None = None


class FileVersion(NamedTuple):
    """By what a file that was changed is told; modification time in nanoseconds."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileVersion:
        """The version that is there now; -1, -1 where none can be seen."""
        try:
            found = path.stat()
        except OSError:
            return cls(-1, -1)
        return cls(found.st_size, found.st_mtime_ns)


class State:
    """The answers of one evaluation, in the user's cache folder.

    Args:
        description: All that the answers depend on, in JSON's types.
        restart: Forget what is there.

    Attributes:
        path: The file.

    Raises:
        EvaluationError: The file cannot be read or written.
    """

    def __init__(self, description: Mapping[str, Any], *, restart: bool = False) -> None:
        first = json.dumps({"evaluation": description}, sort_keys=True)
        key = hashlib.sha256(first.encode()).hexdigest()[:32]
        self.path = cache_dir() / "evaluations" / f"{key}.jsonl"
        self._answers: dict[str, tuple[FileVersion, Answer]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w+b" if restart else "a+b")
            self._file.seek(0)
            content = self._file.read()
            for line in content.splitlines():
                self._take(line)
            if not content:
                self._write(first)
            elif not content.endswith(b"\n"):
                self._write("")  # ends the line that an interruption cut off
        except OSError as error:
            raise self._error(error) from error

    def answer(self, image: Image, version: FileVersion) -> Answer | None:
        """What was said to this version of the image, None if nothing was yet."""
        known, answer = self._answers.get(image.name, (None, None))
        return answer if known == version else None

    def add(self, image: Image, version: FileVersion, answer: Answer) -> None:
        """Keep an answer, from now on also through a crash of this process.

        Raises:
            EvaluationError: The file cannot be written.
        """
        self._answers[image.name] = version, answer
        line = {"file": image.name, **version._asdict(), **answer._asdict()}
        try:
            self._write(json.dumps(line))
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Leave the file as it is, for the next time."""
        self._file.close()

    def delete(self) -> None:
        """Remove the file: the evaluation is complete."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _take(self, line: bytes) -> None:
        """Reads an answer. A line that is none was cut off, and its image is done anew."""
        try:
            found = json.loads(line)
            version = FileVersion(found["size"], found["mtime_ns"])
            best = tuple(tuple(each) for each in found["best"])
            self._answers[found["file"]] = version, Answer(best, found["cosine"])
        except (ValueError, KeyError, TypeError):
            pass

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n".encode())
        self._file.flush()

    def _error(self, error: OSError) -> EvaluationError:
        return EvaluationError(
            f"the evaluation's state cannot be kept in {self.path.parent} ({error.strerror}): "
            "make room there or set XDG_CACHE_HOME"
        )


def describe(
    folder: Path, truth: Truth | None, limit: int | None, classifiers: Sequence[Classifier]
) -> dict[str, Any]:
    """All that an evaluation's answers depend on but the images themselves, in JSON's types."""
    return {
        "efv2_ros": __version__,
        "opencv": cv2.__version__,
        "folder": str(folder.resolve()),
        "truth": None if truth is None else [str(truth.path.resolve()), truth.sha256],
        "limit": limit,
        "models": [_describe(each) for each in classifiers],
    }


def _describe(classifier: Classifier) -> dict[str, Any]:
    model, view = classifier.model, classifier.options
    return {
        "file": [str(model.file.path.resolve()), model.file.sha256],
        "runtime": [model.runtime.info.name, model.runtime.info.version],
        "options": asdict(replace(model.request.run_options(), slots=1)),
        "image": asdict(model.image),
        "crop_pct": model.file.spec.crop_pct,
        "fit": view.fit,
        "antialias": view.antialias,
    }
