"""What the shipped recipes bring: figures of a data file, and whether they are still true.

`scripts/recipe_estimates.py` measures them. Latencies are the compiler's estimates, not a board's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from efv2_ros.files import open_atomic
from efv2_ros.models.efficientformerv2.builder import SIZES
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.recipe import Recipe, find_recipe, recipe_files
from efv2_ros.resources import share_path

FILE = ("models", "recipes", "estimates.json")
"""Place of the data file in the package."""

_VERSION = 1
_KEPT_DIGITS = 16
_ONE_SIZE = re.compile(rf"_({'|'.join(SIZES)})$")


@dataclass(frozen=True)
class Entry:
    """Figures of one recipe for one size.

    Attributes:
        size: Size of EfficientFormerV2.
        recipe: Name of the recipe.
        recipe_digest: See `recipe_digest`.
        level: The compiler's effort.
        milliseconds: Latency by the compiler's estimate.
        fps: Frames per second of one core, by the same.
        ddr_bytes: Memory traffic of a frame, by the same.
        cosine_mean: Mean cosine of the logits with the float model's.
        cosine_min: The least of them.
        agreement: Share of the images with the float model's best class.
        agreement_low: Lower end of its 95 % interval.
        agreement_high: Upper end of its 95 % interval.
        images: Number of images that the models were compared with.
        calibration_images: Number of other images, which were calibrated with.
        weights: What the float model was: `trained`, or `random` with its seed.
        model_sha256: SHA-256 of the float model.
        made_by: Version of this package.
        toolchain: Versions of the vendor's packages.
    """

    size: str
    recipe: str
    recipe_digest: str
    level: str
    milliseconds: float
    fps: float
    ddr_bytes: int
    cosine_mean: float
    cosine_min: float
    agreement: float
    agreement_low: float
    agreement_high: float
    images: int
    calibration_images: int
    weights: str
    model_sha256: str
    made_by: str
    toolchain: dict[str, str]


class Row(NamedTuple):
    """A recipe and a size, with figures or without.

    Attributes:
        size: Size of EfficientFormerV2.
        recipe: Name of the recipe.
        entry: Its figures; None where nobody measured them.
        is_stale: Whether the recipe was changed since they were measured.
    """

    size: str
    recipe: str
    entry: Entry | None
    is_stale: bool

    @property
    def note(self) -> str:
        """What is wrong with the figures; may be empty."""
        if self.entry is None:
            return "not measured"
        return "the recipe was changed since" if self.is_stale else ""


def recipe_digest(recipe: Recipe, size: str) -> str:
    """Digest of all that a recipe does for a size, without its description."""
    fields = replace(recipe.for_size(size), description="").as_dict()
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEPT_DIGITS]


def suits(recipe: str, size: str) -> bool:
    """Whether a recipe is for a size: one whose name ends with another size is not."""
    found = _ONE_SIZE.search(recipe)
    return found is None or found[1] == size


def read_estimates(path: Path | None = None) -> list[Entry]:
    """Read the data file.

    Args:
        path: The file; None is the shipped one, which may be missing.

    Raises:
        QuantizeError: It cannot be read.
    """
    try:
        path = path or share_path(*FILE)
    except FileNotFoundError:
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != _VERSION:
            raise QuantizeError(f"{path} has version {document['version']}, not {_VERSION}")
        return [_entry(fields) for fields in document["estimates"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise QuantizeError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise QuantizeError(f"{path} is no file of estimates: {error!r}") from error


def _entry(fields: Any) -> Entry:
    entry = Entry(**fields)
    numbers = (entry.milliseconds, entry.fps, entry.cosine_mean, entry.cosine_min, entry.agreement,
               entry.agreement_low, entry.agreement_high)  # fmt: skip
    if not all(isinstance(each, (int, float)) for each in numbers):
        raise ValueError(f"{entry.size} {entry.recipe} has a figure that is no number")
    return entry


def write_estimates(entries: Iterable[Entry], path: Path) -> None:
    """Write the data file, sorted by size and recipe.

    Raises:
        FileWriteError: It cannot be written.
    """
    ordered = sorted(entries, key=lambda each: (each.size, each.recipe))
    document = {"version": _VERSION, "estimates": [asdict(each) for each in ordered]}
    with open_atomic(path) as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def shipped_recipes() -> list[Recipe]:
    """Read all shipped recipes.

    Raises:
        RecipeError: One is wrong.
    """
    return [find_recipe(name) for name in recipe_files()]


def rows(entries: Sequence[Entry], recipes: Sequence[Recipe], sizes: Sequence[str]) -> list[Row]:
    """Find the figures of each recipe for each size that it is for; the fastest first.

    Args:
        entries: From the data file.
        recipes: The recipes as they are now.
        sizes: Sizes of EfficientFormerV2.
    """
    known = {(each.size, each.recipe): each for each in entries}
    found: list[Row] = []
    for size in sizes:
        some = []
        for recipe in recipes:
            if suits(recipe.name, size):
                entry = known.get((size, recipe.name))
                is_stale = entry is not None and entry.recipe_digest != recipe_digest(recipe, size)
                some.append(Row(size, recipe.name, entry, is_stale))
        found += sorted(some, key=_by_latency)
    return found


def _by_latency(row: Row) -> tuple[float, str]:
    return (float("inf") if row.entry is None else row.entry.milliseconds, row.recipe)


def markdown(found: Sequence[Row], headings: Sequence[str], notes: dict[str, str]) -> str:
    """Make the table of the documents.

    Args:
        found: The rows.
        headings: Of the columns: size, recipe, milliseconds, frames per second, megabytes,
            cosine, least cosine, agreement, note.
        notes: Translations of `Row.note`.
    """
    lines = [f"| {' | '.join(headings)} |", f"| --- | --- |{' ---: |' * 6} --- |"]
    lines += [f"| {' | '.join([*cells(row), notes.get(row.note, row.note)])} |" for row in found]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> Iterator[str]:
    """The texts of a row, without its note: empty where nothing is known."""
    yield from (row.size, row.recipe)
    entry = row.entry
    if entry is None:
        yield from [""] * 6
        return
    yield f"{entry.milliseconds:.2f}"
    yield f"{entry.fps:.0f}"
    yield f"{entry.ddr_bytes / 1e6:.1f}"
    yield f"{entry.cosine_mean:.4f}"
    yield f"{entry.cosine_min:.4f}"
    low, high = 100 * entry.agreement_low, 100 * entry.agreement_high
    yield f"{100 * entry.agreement:.1f} % [{low:.0f}, {high:.0f}]"
