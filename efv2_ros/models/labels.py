"""Read class names from a text, JSON or YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efv2_ros.errors import Efv2Error
from efv2_ros.models.inputs import read_input, shorten


class LabelsError(Efv2Error, ValueError):
    """A labels file that cannot be read, or does not name each class exactly once."""


def load_labels(path: Path, count: int) -> tuple[str, ...]:
    """Read the names of a model's classes, in the order of its outputs.

    The file's suffix decides how it is read:
        `.json`, `.yaml`, `.yml`: A list of names, or a map from class id to name. A name may also
            be the last text of a list, as in ImageNet's `{"0": ["n01440764", "tench"], ...}`.
        Any other: Text with one name per line. Blank lines at the end are ignored.

    Args:
        path: The file, in UTF-8.
        count: Number of classes.

    Raises:
        LabelsError: The file cannot be read, or does not hold exactly `count` names.
    """
    return tuple(names[-1] for names in load_class_names(path, count))


def load_class_names(path: Path, count: int) -> tuple[tuple[str, ...], ...]:
    """Read all names of each class, for example ImageNet's WordNet id besides the name.

    Args:
        path: See `load_labels`.
        count: Number of classes.

    Returns:
        For each class, the texts of its list in the file, such as `("n01440764", "tench")`, or
        its only name. The last text is the one that `load_labels` returns.

    Raises:
        LabelsError: See `load_labels`.
    """
    try:
        text = read_input(path, max_mib=16).decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the name
        raise LabelsError(f"cannot read labels file {path}: {error}") from error
    match path.suffix.lower():
        case ".json":
            entries = _entries(_parse_json(path, text), path)
        case ".yaml" | ".yml":
            entries = _entries(_parse_yaml(path, text), path)
        case _:
            entries = text.rstrip().splitlines()
    if len(entries) != count:
        raise LabelsError(
            f"labels file {path} has {len(entries)} names, but the model has {count} classes"
        )
    return tuple(_names(entry, index, path) for index, entry in enumerate(entries))


def _parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"labels file {path} is not valid JSON: {error}") from error


def _parse_yaml(path: Path, text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(text)
    except Exception as error:  # of a value that does not fit its tag, PyYAML raises anything
        raise LabelsError(f"labels file {path} is not valid YAML: {error}") from error


def _entries(document: Any, path: Path) -> Sequence[Any]:
    """Return the list, or the map's values in the order of their ids, which must be 0, 1, 2..."""
    if isinstance(document, list):
        return document
    if not isinstance(document, Mapping):
        raise LabelsError(f"labels file {path} is neither a list nor a map of names")
    by_id: dict[int, Any] = {}
    for key, name in document.items():
        try:
            class_id = int(key)
        except (TypeError, ValueError, OverflowError):
            raise LabelsError(
                f"labels file {path} has {shorten(key)} where a class id goes"
            ) from None
        if class_id in by_id:
            raise LabelsError(f"labels file {path} names class {shorten(class_id)} twice")
        by_id[class_id] = name
    for class_id in range(len(by_id)):
        if class_id not in by_id:
            raise LabelsError(f"labels file {path} has no name for class {class_id}")
    return [by_id[class_id] for class_id in range(len(by_id))]


def _names(entry: Any, class_id: int, path: Path) -> tuple[str, ...]:
    names = entry if isinstance(entry, list) and entry else [entry]
    if not isinstance(names[-1], str) or not names[-1].strip():
        raise LabelsError(
            f"labels file {path} has no name for class {class_id}, but {shorten(names[-1])}"
        )
    texts = tuple(name.strip() for name in names if isinstance(name, str))
    if any(0xD800 <= ord(letter) < 0xE000 for text in texts for letter in text):
        raise LabelsError(
            f"labels file {path}: the name of class {class_id} is no text that UTF-8 can hold "
            f"(half of a surrogate pair): {shorten(texts)}"
        )
    return texts
