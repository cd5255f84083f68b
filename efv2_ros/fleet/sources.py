"""Which bags are meant by `BAG... | DIR | LIST`, and what their results are called."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from efv2_ros.bags.bag import is_storage_file
from efv2_ros.bags.errors import BagError

_PART = re.compile(r"(.*)_\d+")
"""Name of a file of a bag with several: rosbag2 appends the file's number."""


class Source(NamedTuple):
    """A bag of a fleet.

    Attributes:
        name: Name of its results, different for each bag of the fleet.
        location: Its path or URL.
    """

    name: str
    location: str

    @property
    def absolute(self) -> str:
        """Its URL, or its path from the root: a worker may have another working folder."""
        return self.location if is_url(self.location) else str(Path(self.location).absolute())


def is_url(text: str) -> bool:
    """Whether a text names something that fsspec opens, and not a path."""
    return "://" in text


def version_of(location: str) -> str:
    """Describe a file's, or a folder's, version by sizes and times of change; empty for URLs."""
    if is_url(location):
        return ""
    path = Path(location)
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [each.stat() for each in files]
    except OSError:
        return ""
    return f"{sum(each.st_size for each in stats)}/{max(each.st_mtime_ns for each in stats)}"


def find_bags(arguments: Sequence[str]) -> list[Source]:
    """Find the bags that the arguments of a command name, in this order; each only once.

    An argument is

    - a bag: a rosbag2 folder, or a storage file;
    - the URL of one;
    - a folder of bags, which are searched in all folders below it, in the order of their names. A
      storage file without a `metadata.yaml` beside it is a bag of its own, unless it is one of
      several of a bag, which have the same name and a number;
    - a text file that names one of these in each line, relative to its own folder. Empty lines and
      those that begin with `#` say nothing.

    Raises:
        BagError: There is no such file or folder, it holds no bag, or the list cannot be read.
    """
    found = dict.fromkeys(each for argument in arguments for each in _expand(argument))
    return [Source(*each) for each in zip(_names(list(found)), found, strict=True)]


def _expand(argument: str, lists: tuple[Path, ...] = ()) -> Iterator[str]:
    """Find the bags of an argument, which is a line of the last of these lists."""
    if is_url(argument):
        yield argument
        return
    path = Path(argument)
    if not path.exists():
        raise BagError(f"there is no bag {argument}")
    if path.is_dir():
        bags = list(_bags_in(path))
        if not bags:
            raise BagError(f"there is no bag in {argument}")
        yield from map(str, bags)
    elif is_storage_file(path):
        yield argument
    elif path.resolve() in lists:
        raise BagError(f"the list {argument} names itself")
    else:
        for line in _lines(path):
            bag = line if is_url(line) else str(path.parent / line)
            yield from _expand(bag, (*lists, path.resolve()))


def _bags_in(folder: Path) -> Iterator[Path]:
    entries = sorted(folder.iterdir())
    files = [each for each in entries if each.is_file() and is_storage_file(each)]
    if (folder / "metadata.yaml").is_file() or _are_one_bag(files):
        yield folder
        return
    yield from files
    for each in entries:
        if each.is_dir() and not each.name.startswith("."):
            yield from _bags_in(each)


def _are_one_bag(files: Sequence[Path]) -> bool:
    """Whether storage files without a description have the names of one bag's parts."""
    matches = [_PART.fullmatch(each.name.split(".")[0]) for each in files]
    return len({match[1] for match in matches if match}) == 1 and all(matches)


def _lines(file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BagError(f"{file} is neither a bag nor a list of bags: {error}") from error
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def _names(locations: Sequence[str]) -> Iterable[str]:
    """Name each bag after the last parts of its location, as many as tell it from the others."""
    parts = [_parts(each) for each in locations]
    lengths = [1] * len(parts)
    while True:
        groups = defaultdict(list)
        for index, (each, length) in enumerate(zip(parts, lengths, strict=True)):
            groups["__".join(each[-length:])].append(index)
        longer = [
            index
            for group in groups.values()
            if len(group) > 1
            for index in group
            if lengths[index] < len(parts[index])
        ]
        if not longer:
            break
        for index in longer:
            lengths[index] += 1
    names = [""] * len(parts)
    for name, group in groups.items():
        for number, index in enumerate(group, start=1):  # the same but for what no name can hold
            names[index] = name if len(group) == 1 else f"{name}__{number}"
    return names


def _parts(location: str) -> list[str]:
    path = PurePosixPath(location.partition("://")[2] if is_url(location) else location)
    *folders, last = [each for each in path.parts if each.strip("/.")] or ["bag"]
    if is_storage_file(path):
        last = last.split(".")[0] or last
    return [re.sub(r"[\x00-\x1f/\\?#]", "_", each) for each in (*folders, last)]
