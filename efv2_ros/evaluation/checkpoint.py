"""Checkpoint file of an evaluation: the answers so far, so that an interrupted run can go on.

JSON lines. The first line describes the evaluation; each other line is the answer to one image,
written as soon as it is known. The file's name is a digest of the first line, so another model,
folder or option has another file.
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
    """The answers of all models to one image.

    Attributes:
        best: For each model, the ids of its best classes, best first.
        cosine: Cosine of the angle between the two models' logits; None for one model.
    """

    best: tuple[tuple[int, ...], ...]
    cosine: float | None = None


class FileVersion(NamedTuple):
    """Size in bytes and modification time in nanoseconds, which tell that a file was changed."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileVersion:
        """Return the version on disk; (-1, -1) if the file cannot be examined."""
        try:
            found = path.stat()
        except OSError:
            return cls(-1, -1)
        return cls(found.st_size, found.st_mtime_ns)


class Checkpoint:
    """The answers of one evaluation, in the user's cache folder.

    Args:
        description: Everything that the answers depend on, in JSON's types; see `describe`.
        restart: Ignore and overwrite an existing file.

    Attributes:
        description: As given.
        path: The file.

    Raises:
        EvaluationError: The file cannot be read or written.
    """

    def __init__(self, description: Mapping[str, Any], *, restart: bool = False) -> None:
        first = json.dumps({"evaluation": description}, sort_keys=True)
        key = hashlib.sha256(first.encode()).hexdigest()[:32]
        self.description = description
        self.path = cache_dir() / "evaluations" / f"{key}.jsonl"
        self._answers: dict[str, tuple[FileVersion, Answer]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w+b" if restart else "a+b")
            self._file.seek(0)
            content = self._file.read()
            for line in content.split(b"\n"):
                self._read(line)
            if not content:
                self._write(first)
            elif not content.endswith(b"\n"):
                self._write("")  # ends the line that an interruption truncated
        except OSError as error:
            raise self._error(error) from error

    def answer(self, image: Image, version: FileVersion) -> Answer | None:
        """Return the answer to this version of an image; None if there is none."""
        known, answer = self._answers.get(image.name, (None, None))
        return answer if known == version else None

    def add(self, image: Image, version: FileVersion, answer: Answer) -> None:
        """Keep an answer. From now on it survives a crash of this process.

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
        """Close the file and keep it for the next run."""
        self._file.close()

    def delete(self) -> None:
        """Close and remove the file: the evaluation is complete."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _read(self, line: bytes) -> None:
        """Read one line. Truncated lines are ignored; their images are evaluated again."""
        try:
            found = json.loads(line)
            version = FileVersion(int(found["size"]), int(found["mtime_ns"]))
            best = tuple(tuple(map(int, each)) for each in found["best"])
            cosine = found["cosine"] if found["cosine"] is None else float(found["cosine"])
            if isinstance(found["file"], str) and best and all(best):
                self._answers[found["file"]] = version, Answer(best, cosine)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n".encode())
        self._file.flush()

    def _error(self, error: OSError) -> EvaluationError:
        return EvaluationError(
            f"cannot keep the evaluation's checkpoint in {self.path.parent} ({error.strerror}): "
            "free some disk space there, or set XDG_CACHE_HOME to another folder"
        )


def describe(
    folder: Path, truth: Truth | None, limit: int | None, classifiers: Sequence[Classifier]
) -> dict[str, Any]:
    """Describe everything but the images that the answers depend on, in JSON's types."""
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
