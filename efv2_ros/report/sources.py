"""The runs that a page of many is made from: files, bags of results, and folders of runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from efv2_ros.replay.run import RunError

INDEX = "index.html"
"""Name of the page of many runs, in the folder of their own pages."""

_SUMMARY = "fleet.json"
_FORMAT = 1
_LONGEST_NAME = 200
"""Most bytes of a page's name without its suffix; file systems allow 255 with it."""


class Problem(NamedTuple):
    """What went wrong with a run, in a sentence."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A run of many.

    Attributes:
        path: Its file, or bag of results.
        name: Its name, which no other run from the same folder has.
        page: Name of the file of its page, which no other run has.
        problems: What went wrong while it was made, as far as its folder's summary knows.
    """

    path: Path
    name: str
    page: str
    problems: tuple[str, ...] = ()


class Sources(NamedTuple):
    """All that the arguments of a command stand for.

    Attributes:
        runs: The runs, in the order of the arguments and of their names.
        failed: Bags that have no run, because their replay failed.
        unreadable: Summaries that cannot be read, and runs that they name and that are missing.
    """

    runs: list[Source]
    failed: list[Problem]
    unreadable: list[Problem]


def is_folder_of_runs(path: Path) -> bool:
    """Whether a path is a folder of runs or of their summary, and not a bag of results."""
    if not path.is_dir() or (path / "metadata.yaml").exists():
        return False
    return (path / _SUMMARY).exists() or any(path.glob("*.jsonl"))


def find_runs(results: Sequence[Path]) -> Sources:
    """Find all runs that are named, or that are in a folder that is named; each only once."""
    failed: list[Problem] = []
    unreadable: list[Problem] = []
    problems: dict[Path, tuple[str, ...]] = {}
    for path in results:
        if not is_folder_of_runs(path):
            problems.setdefault(path, ())
            continue
        try:
            entries = {path / f"{each.name}.jsonl": each for each in _read_summary(path)}
        except RunError as error:
            unreadable.append(Problem(path.name, str(error)))
            entries = {}
        files = sorted(path.glob("*.jsonl"))
        for file in files:
            problems[file] = entries[file].problems if file in entries else ()
        for file, entry in entries.items():
            if file not in problems and entry.has_run:
                unreadable.append(Problem(entry.name, f"there is no run {file}"))
            elif file not in problems:
                failed.append(Problem(entry.name, "; ".join(entry.problems) or "it failed"))
    names = [path.name if path.is_dir() else path.stem for path in problems]
    runs = [
        Source(path, name, page, each)
        for (path, each), name, page in zip(
            problems.items(), names, _page_names(names), strict=True
        )
    ]
    return Sources(runs, failed, unreadable)


class _Entry(NamedTuple):
    name: str
    has_run: bool
    problems: tuple[str, ...]


def _read_summary(folder: Path) -> list[_Entry]:
    """Read what the summary of a folder says of each bag; nothing if there is none.

    Raises:
        RunError: The summary cannot be read, or has another form.
    """
    path = folder / _SUMMARY
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}, and not {_FORMAT}")
        return [
            _Entry(
                str(each["name"]),
                each["status"] == "done",
                tuple(str(problem) for problem in each.get("problems") or ()),
            )
            for each in document["bags"]
        ]
    except FileNotFoundError:
        return []
    except Exception as error:  # other programs' JSON may hold anything
        raise RunError(f"{path} is not the summary of a fleet: {error!r}") from error


def _page_names(names: Iterable[str]) -> Iterator[str]:
    """Choose a name for each page; names that differ in their case only are the same to some."""
    taken = {Path(INDEX).stem}
    for name in names:
        stem = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
        page, number = stem, 1
        while page.casefold() in taken:
            number += 1
            page = f"{stem}_{number}"
        taken.add(page.casefold())
        yield f"{page}.html"
