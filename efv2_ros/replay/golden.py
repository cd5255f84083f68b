"""Comparison of a run with a golden one, which is held to be right, and its JUnit XML."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

from efv2_ros.files import open_atomic_binary
from efv2_ros.replay.run import FrameResult, Run

Kind = Literal["missing", "extra", "dropped", "frame_id", "top-1", "score", "count", "rank"]


class Key(NamedTuple):
    """Identity of an image in both runs.

    Attributes:
        nanoseconds: Its stamp.
        repetition: Number of earlier images with the same stamp.
    """

    nanoseconds: int
    repetition: int

    def __str__(self) -> str:
        again = f" ({self.repetition + 1}.)" if self.repetition else ""
        return f"{self.nanoseconds // 10**9}.{self.nanoseconds % 10**9:09d}{again}"


class Difference(NamedTuple):
    """An image whose results differ: what differs, and a sentence about it."""

    key: Key
    kind: Kind
    text: str


@dataclass(frozen=True)
class Comparison:
    """Result of comparing two runs.

    Attributes:
        keys: All images of either run, in the order of their stamps.
        differences: Differing images, in the same order, each once.
        notes: Settings that were others when the golden run was made, a sentence each.
        tolerance: See `compare`.
    """

    keys: Sequence[Key]
    differences: Sequence[Difference]
    notes: Sequence[str]
    tolerance: float


def compare(golden: Run, run: Run, tolerance: float) -> Comparison:
    """Compare two runs, image by image.

    An image is the same when both runs classified it, or dropped it for the same cause, and:

    - the best class is the same;
    - the score of every class in either result differs by at most `tolerance`. A class that one
      result lacks scores there at most its lowest score; or at most the run's `score_threshold`
      if that result is the shorter one;
    - so does the score at each rank. Classes of nearly equal scores may change places.

    Args:
        golden: The run that is held to be right.
        run: The run that is compared with it.
        tolerance: Largest difference of a score, 0..1.
    """
    expected, actual = _by_key(golden.frames), _by_key(run.frames)
    keys = sorted(expected.keys() | actual.keys())
    differences = []
    for key in keys:
        if key not in actual:
            differences.append(Difference(key, "missing", "missing: it is in the golden run only"))
        elif key not in expected:
            differences.append(Difference(key, "extra", "extra: it is not in the golden run"))
        elif found := _difference(expected[key], actual[key], golden, run, tolerance):
            differences.append(Difference(key, *found))
    return Comparison(keys, differences, list(_notes(golden, run)), tolerance)


def _by_key(frames: Sequence[FrameResult]) -> dict[Key, FrameResult]:
    repetitions: Counter[int] = Counter()
    keyed = {}
    for frame in frames:
        stamp = frame.header.nanoseconds
        keyed[Key(stamp, repetitions[stamp])] = frame
        repetitions[stamp] += 1
    return keyed


def _difference(
    expected: FrameResult, actual: FrameResult, golden: Run, run: Run, tolerance: float
) -> tuple[Kind, str] | None:
    if expected.dropped != actual.dropped:
        return "dropped", f"{_fate(actual)}, but {_fate(expected)} in the golden run"
    (ids, scores), (new_ids, new_scores) = expected.prediction, actual.prediction
    if ids[:1] != new_ids[:1]:
        return "top-1", (f"{_best(actual, run)}, but {_best(expected, golden)} in the golden run")
    if expected.header.frame_id != actual.header.frame_id:
        return "frame_id", (
            f"frame_id '{actual.header.frame_id}', but '{expected.header.frame_id}' in the "
            "golden run"
        )
    before, now = _Scores.of(expected, actual, golden), _Scores.of(actual, expected, run)
    for class_id in dict.fromkeys((*ids, *new_ids)):
        (low, high), (new_low, new_high) = before.bounds(class_id), now.bounds(class_id)
        if new_low - high <= tolerance and low - new_high <= tolerance:
            continue
        name = golden.labels.get(class_id) or run.labels.get(class_id) or f"class {class_id}"
        figures = f"{now.score_text(class_id)}, but {before.score_text(class_id)}"
        if len(ids) != len(new_ids) and (class_id in ids) != (class_id in new_ids):
            return "count", (
                f"{len(new_ids)} results, but {len(ids)} in the golden run; {name} scores "
                f"{figures} there"
            )
        return "score", f"{name} scores {figures} in the golden run"
    for rank, (score, new_score) in enumerate(zip_longest(scores, new_scores)):
        first = before.highest_missing if score is None else score
        second = now.highest_missing if new_score is None else new_score
        if not abs(second - first) <= tolerance:
            return "rank", (
                f"number {rank + 1} is {_result(actual, run, rank)}, but "
                f"{_result(expected, golden, rank)} in the golden run"
            )
    return None


class _Scores(NamedTuple):
    """A run's result for one image.

    Attributes:
        scores: Scores by class id.
        highest_missing: Highest possible score of a class that the result lacks.
    """

    scores: Mapping[int, float]
    highest_missing: float

    @classmethod
    def of(cls, frame: FrameResult, other: FrameResult, run: Run) -> _Scores:
        """Take the result of `frame` from `run`; `other` is the image in the other run."""
        ids, scores = frame.prediction
        view = run.info.get("view")
        threshold = view.get("score_threshold") if isinstance(view, Mapping) else None
        highest_missing = float(threshold) if isinstance(threshold, (int, float)) else 0.0
        # In the shorter result it was the threshold that ended the list, not top_k.
        if len(scores) >= len(other.prediction.scores):
            highest_missing = max(highest_missing, min(scores, default=0.0))
        return cls(dict(zip(ids, scores, strict=True)), highest_missing)

    def bounds(self, class_id: int) -> tuple[float, float]:
        """Return the lowest and the highest possible score of a class."""
        score = self.scores.get(class_id)
        return (-math.inf, self.highest_missing) if score is None else (score, score)

    def score_text(self, class_id: int) -> str:
        """Format a class's score, or the highest possible one."""
        score = self.scores.get(class_id)
        return f"at most {self.highest_missing:.6f}" if score is None else f"{score:.6f}"


def _fate(frame: FrameResult) -> str:
    return f"dropped ({frame.dropped})" if frame.dropped else "classified"


def _best(frame: FrameResult, run: Run) -> str:
    return _result(frame, run, 0) if frame.prediction.scores else "no class above the threshold"


def _result(frame: FrameResult, run: Run, rank: int) -> str:
    """Format the result at a rank, counted from 0."""
    ids, scores = frame.prediction
    if rank >= len(ids):
        return "missing"
    return f"{run.labels.get(ids[rank]) or f'class {ids[rank]}'} ({scores[rank]:.4f})"


def _notes(golden: Run, run: Run) -> Iterator[str]:
    before, now = _circumstances(golden), _circumstances(run)
    for name in before:  # an older golden run lacks newer settings
        if before[name] != now.get(name):
            yield f"{name} is {now.get(name)}, and was {before[name]} in the golden run"


def _circumstances(run: Run) -> dict[str, Any]:
    """Collect the settings that may explain a difference."""
    named = {name: run.info.get(name) for name in ("model", "runtime", "topic")}
    view = run.info.get("view")
    return named | (dict(view) if isinstance(view, Mapping) else {})


def write_junit(comparison: Comparison, path: Path, *, name: str, problems: Sequence[str]) -> None:
    """Write a comparison as JUnit XML, which CI systems show: one test case per image.

    Args:
        comparison: The comparison.
        path: The file.
        name: Name of the test suite.
        problems: Problems of the bag; each becomes an error.

    Raises:
        FileWriteError: The file cannot be written.
    """
    failures = {each.key: each for each in comparison.differences}
    name = _printable(name)
    suite = ElementTree.Element(
        "testsuite", name=name, tests=str(len(comparison.keys) + len(problems)),
        failures=str(len(failures)), errors=str(len(problems)), skipped="0",
    )  # fmt: skip
    for problem in problems:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name="bag")
        ElementTree.SubElement(case, "error", type="bag", message=_printable(problem))
    for key in comparison.keys:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=str(key))
        if key in failures:
            kind, text = failures[key].kind, failures[key].text
            ElementTree.SubElement(case, "failure", type=kind, message=_printable(text))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    with open_atomic_binary(path) as file:
        ElementTree.ElementTree(suites).write(file, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """Replace control characters, which XML cannot hold."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
