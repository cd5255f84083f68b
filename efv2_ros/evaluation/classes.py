"""A model's classes by whatever people and data sets call them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from efv2_ros.classify.model import Model
from efv2_ros.errors import Efv2Error
from efv2_ros.models.labels import load_class_names
from efv2_ros.resources import share_path

_WNID = re.compile(r"(?<![A-Za-z0-9])n[0-9]{8}(?![0-9])")
"""A WordNet id, alone or in a name that goes on, as `n02085620-Chihuahua`."""

_INDEX = re.compile(r"[+-]?[0-9]{1,9}")

_IMAGENET_CLASSES = 1000


class EvaluationError(Efv2Error):
    """An evaluation that cannot be made; the message says what to change."""


class Classes:
    """Finds the class that a text means.

    Args:
        names: For each class, in the order of the model's outputs, all that it is called; may be
            empty. WordNet ids among them are found in longer texts too.
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
        """The classes of a model: by its labels file's names, and ImageNet's by WordNet ids.

        A model of 1000 classes whose labels file has no ids is taken for one of ImageNet-1k, in
        the usual order of its outputs.

        Raises:
            LabelsError: The labels file is not there any more.
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
        """The class that a text means, None where the model has no such class.

        The first of: a name or id just as the labels file has it; a WordNet id somewhere in the
        text; a class index, counted from 0; a name but for case, spaces and punctuation.

        Raises:
            EvaluationError: An index beyond the model's classes, or a name that two of them have.
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
        """The class of the WordNet id in a text; None without one, or for another's class."""
        return self.find(text) if _WNID.search(text) else None

    def index(self, number: int) -> int:
        """A class index that was given as such.

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
    """The WordNet ids of ImageNet-1k in the usual order, that of the ids."""
    path = share_path("models", "labels", "imagenet1k.json")
    return tuple(names[0] for names in load_class_names(path, _IMAGENET_CLASSES))


def _enter(names: dict[str, int | None], name: str, class_id: int) -> None:
    """Notes a name; None stands for several classes."""
    if name:
        names[name] = class_id if names.get(name, class_id) == class_id else None


def _loosely(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
