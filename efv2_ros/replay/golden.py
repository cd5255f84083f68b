"""Golden runs: a run beside the one that is held to be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

from efv2_ros.replay.run import FrameResult, Run, RunError

Kind = Literal["missing", "extra", "dropped", "frame_id", "top-1", "score"]


class Key(NamedTuple):
    """What is the same of an image in both runs.

    Attributes:
        nanoseconds: Its stamp.
        repetition: How many images before it have the same stamp.
    """

    nanoseconds: int
    repetition: int

    def __str__(self) -> str:
        again = f" ({self.repetition + 1}.)" if self.repetition else ""
        return f"{self.nanoseconds // 10**9}.{self.nanoseconds % 10**9:09d}{again}"


class Difference(NamedTuple):
    """One image that is not as it should be, and a sentence that says how."""

    key: Key
    kind: Kind
    text: str


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two runs.

    Attributes:
        keys: All images of either run, in the order of their stamps.
        differences: In the same order; at most one of an image.
        notes: What ran otherwise than when the golden run was made.
        tolerance: See `compare`.
    """

    keys: Sequence[Key]
    differences: Sequence[Difference]
    notes: Sequence[str]
    tolerance: float


def compare(golden: Run, run: Run, tolerance: float) -> Comparison:
    """Compare image by image.

    The best class must be the same. A class of the golden run may have another score by
    `tolerance`, and may be absent if its score would be no higher than the lowest told, by the
    same tolerance: of nearly equal classes either may come last.

    Args:
        golden: What is right.
        run: What is compared with it.
        tolerance: Of scores, 0..1.
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
    scored = dict(zip(new_ids, new_scores, strict=True))
    lowest = min(new_scores, default=0.0)
    for class_id, score in zip(ids, scores, strict=True):
        new = scored.get(class_id, min(score, lowest))
        if abs(new - score) > tolerance:
            told = f"{new:.6f}" if class_id in scored else f"at most {lowest:.6f}"
            name = golden.labels.get(class_id) or f"class {class_id}"
            return "score", f"{name} scores {told}, but {score:.6f} in the golden run"
    return None


def _fate(frame: FrameResult) -> str:
    return f"dropped ({frame.dropped})" if frame.dropped else "classified"


def _best(frame: FrameResult, run: Run) -> str:
    ids, scores = frame.prediction
    if not ids:
        return "no class above the threshold"
    return f"{run.labels.get(ids[0]) or f'class {ids[0]}'} ({scores[0]:.4f})"


def _notes(golden: Run, run: Run) -> Iterator[str]:
    before, now = _circumstances(golden), _circumstances(run)
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            yield f"{name} is {now.get(name)}, and was {before.get(name)} in the golden run"


def _circumstances(run: Run) -> dict[str, Any]:
    """What may be the reason for a difference."""
    named = {name: run.info.get(name) for name in ("model", "runtime", "topic")}
    view = run.info.get("view")
    return named | (dict(view) if isinstance(view, Mapping) else {})


def write_junit(comparison: Comparison, path: Path, *, name: str, problems: Sequence[str]) -> None:
    """Write a comparison as JUnit XML, which CI systems show: a test case for each image.

    Args:
        comparison: What to write.
        path: The file.
        name: Of the test suite.
        problems: What else is wrong; an error each.

    Raises:
        RunError: The file cannot be written.
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
    try:
        ElementTree.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}") from error


def _printable(text: str) -> str:
    """Without control characters, which XML cannot hold."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
