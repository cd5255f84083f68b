"""Lookup of a model's classes by index, WordNet id or label, as data sets name them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from efv2_ros.classify.model import Model
from efv2_ros.errors import Efv2Error
from efv2_ros.models.labels import load_class_names
from efv2_ros.resources import share_path

_WNID = re.compile(r"(?<![A-Za-z0-9])n[0-9]{8}(?![0-9])")
"""A WordNet id, alone or within a longer name such as `n02085620-Chihuahua`."""

_INDEX = re.compile(r"[+-]?[0-9]{1,9}")

_IMAGENET_CLASSES = 1000


class EvaluationError(Efv2Error):
    """An evaluation that is not possible; the message says what to change."""


class Classes:
    """The classes of a model, to be found by a name.

    Args:
        names: All names of each class, in the order of the model's outputs; may be empty. A
            WordNet id among them is also found within a longer text.

    Attributes:
        count: Number of classes.
    """

    def __init__(self, names: Sequence[Sequence[str]]) -> None:
        self.count = len(names)
        self._exact: dict[str, int | None] = {}
        self._loose: dict[str, int | None] = {}
        for class_id, each in enumerate(names):
            for name in each:
                _enter(self._exact, name, class_id)
                _enter(self._loose, _loosely(name), class_id)

    @classmethod
    def of(cls, model: Model) -> Classes:
        """Make the classes of a model from its labels file.

        A model of 1000 classes whose labels file has no WordNet ids is assumed to be of
        ImageNet-1k, with its outputs in the usual order, and gets those ids.

        Raises:
            LabelsError: The labels file cannot be read any more.
        """
        spec, count = model.file.spec, model.runtime.info.classes
        names: Sequence[tuple[str, ...]] = [()] * count
        if spec.labels is not None:
            names = load_class_names(spec.labels, count)
        has_ids = any(_WNID.fullmatch(name) for each in names for name in each)
        if count == _IMAGENET_CLASSES and not has_ids:
            pairs = zip(names, imagenet_wnids(), strict=True)
            names = [(wnid, *each) for each, wnid in pairs]
        return cls(names)

    def find(self, text: str) -> int | None:
        """Find the class that a text names; None if the model has no such class.

        The text is tried in this order as: a name or id exactly as in the labels file; a text that
        holds a WordNet id; a class index from 0; a name regardless of case, spaces and
        punctuation.

        Raises:
            EvaluationError: The index is beyond the model's classes, or two classes have the name.
        """
        text = text.strip()
        if text in self._exact:
            return self._single(self._exact, text)
        wnids = set(_WNID.findall(text))
        if wnids:
            return self._exact.get(wnids.pop()) if len(wnids) == 1 else None
        if _INDEX.fullmatch(text):
            return self.index(int(text))
        return self._single(self._loose, _loosely(text))

    def find_wnid(self, text: str) -> int | None:
        """Find the class of the WordNet id in a text; None without an id or such a class."""
        return self.find(text) if _WNID.search(text) else None

    def index(self, number: int) -> int:
        """Check a class index and return it.

        Raises:
            EvaluationError: The model has no such class.
        """
        if not 0 <= number < self.count:
            raise EvaluationError(
                f"class index {number} is none of the model's {self.count} classes, "
                f"0 to {self.count - 1}"
            )
        return number

    @staticmethod
    def _single(names: Mapping[str, int | None], name: str) -> int | None:
        if name in names and names[name] is None:
            raise EvaluationError(f"two of the model's classes are called '{name}': use indices")
        return names.get(name)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k in the usual order, which is ascending."""
    path = share_path("models", "labels", "imagenet1k.json")
    return tuple(names[0] for names in load_class_names(path, _IMAGENET_CLASSES))


def _enter(names: dict[str, int | None], name: str, class_id: int) -> None:
    """Add a name; the value None marks a name of several classes."""
    if name:
        names[name] = class_id if names.get(name, class_id) == class_id else None


def _loosely(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
