"""Runs: the results of all images of a topic, and their file format, JSON lines.

The first line describes the run. Each other line is an image, in the order of the stamps:

    {"run": {"bag": "drive", "topic": "/image", "model": "efficientformerv2_s0", ...}}
    {"sec": 12, "nanosec": 0, "frame_id": "camera",
     "results": [{"class_id": 1, "label": "goldfish", "score": 0.9}, ...]}
    {"sec": 12, "nanosec": 33000000, "frame_id": "camera", "dropped": "decode", "reason": "..."}

The same images, model and runtime give the same bytes, unless the stages' `milliseconds` are
written too.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from efv2_ros.classify.latency import Percentiles
from efv2_ros.classify.postprocess import Prediction
from efv2_ros.errors import Efv2Error
from efv2_ros.files import open_atomic
from efv2_ros.vision.frame import Header
from efv2_ros.vision.seen import Seen


class RunError(Efv2Error):
    """A file that is not a run or cannot be read, or a run that must not be used."""


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Result of one image.

    Attributes:
        header: Header of the image.
        prediction: Best classes first; empty if the image was dropped.
        dropped: Short cause, as diagnostics count it; empty if the image was classified.
        reason: The cause in a sentence.
        milliseconds: Duration of each stage, by its name in `latency`; empty if unknown.
        seen: Size of the image and the part of it that the network saw; None if unknown, as of a
            run from a file. Results are equal whether or not it is known.
    """

    header: Header
    prediction: Prediction = Prediction((), ())
    dropped: str = ""
    reason: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    seen: Seen | None = field(default=None, compare=False)


@dataclass(slots=True)
class Run:
    """Results of all images of a topic.

    Attributes:
        info: Description in JSON's types: `bag`, `topic`, `model`, `runtime`, `view` and more.
        labels: Names by class id, at least of the classes that occur.
        frames: Results in the order of the stamps.
        lost: Number of further images that a live node counted as dropped, by cause.
    """

    info: dict[str, Any]
    labels: Mapping[int, str]
    frames: list[FrameResult]
    lost: Mapping[str, int] = field(default_factory=dict)

    def drops(self) -> dict[str, int]:
        """Count the images without a result, by cause."""
        causes = Counter(frame.dropped for frame in self.frames if frame.dropped)
        return dict(sorted((causes + Counter(self.lost)).items()))

    def stages(self) -> dict[str, Percentiles]:
        """Summarize each stage's durations over all images that have it."""
        durations: dict[str, list[float]] = {}
        for frame in self.frames:
            for stage, ms in frame.milliseconds.items():
                durations.setdefault(stage, []).append(ms / 1e3)
        return {stage: Percentiles.of(each) for stage, each in durations.items()}


def write_jsonl(run: Run, file: IO[str], *, timings: bool = False) -> None:
    """Write a run as JSON lines.

    Args:
        run: The run.
        file: A text file, open for writing.
        timings: Write `milliseconds` too, which differ from run to run.
    """
    file.writelines(f"{line}\n" for line in _lines(run, timings))


def save_jsonl(run: Run, path: Path, *, timings: bool = False) -> None:
    """Write a run as the file `path`, whole or not at all; see `write_jsonl`.

    Raises:
        FileWriteError: The file cannot be written.
    """
    with open_atomic(path) as file:
        write_jsonl(run, file, timings=timings)


def _lines(run: Run, timings: bool) -> Iterator[str]:
    yield _json_line({"run": run.info})
    for frame in run.frames:
        yield _json_line(_as_dict(frame, run.labels, timings))


def _json_line(document: Mapping[str, Any]) -> str:
    r"""Format a line of JSON that UTF-8 can encode and that no reader splits.

    Lone surrogates, U+0085, U+2028 and U+2029, which `json` leaves as they are, become `\uXXXX`.
    """
    text = json.dumps(document, ensure_ascii=False)
    return _TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


_TO_ESCAPE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _as_dict(frame: FrameResult, labels: Mapping[int, str], timings: bool) -> dict[str, Any]:
    line: dict[str, Any] = frame.header._asdict()
    if frame.dropped:
        line |= {"dropped": frame.dropped, "reason": frame.reason}
    else:
        line["results"] = [
            {"class_id": class_id, "label": labels.get(class_id, ""), "score": score}
            for class_id, score in zip(*frame.prediction, strict=True)
        ]
    if timings and frame.milliseconds:
        line["milliseconds"] = {stage: round(ms, 4) for stage, ms in frame.milliseconds.items()}
    return line


def read_jsonl(path: Path) -> Run:
    """Read a run that `write_jsonl` wrote.

    Raises:
        RunError: The file cannot be read, or a line has another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot read the run {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"cannot read the run {path}: {error}") from error
    labels: dict[int, str] = {}
    info: dict[str, Any] | None = None
    frames: list[FrameResult] = []
    # splitlines() would also split at U+0085, U+2028 and U+2029, which labels may hold.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
        try:
            document = json.loads(line)
            if info is None:
                info = dict(document["run"])
            else:
                frames.append(_from_dict(document, labels))
        except Exception as error:  # other programs' JSON may hold anything
            raise RunError(f"line {number} of {path} is not of a run: {error!r}") from error
    if info is None:
        raise RunError(f"{path} is empty: it holds no run")
    return Run(info, labels, frames)


def _from_dict(document: Mapping[str, Any], labels: dict[int, str]) -> FrameResult:
    header = Header(
        int(document["sec"]), int(document["nanosec"]), str(document.get("frame_id", ""))
    )
    if not (-(2**31) <= header.sec < 2**31 and 0 <= header.nanosec < 2**32):
        raise ValueError(f"{header.sec} s, {header.nanosec} ns is no ROS stamp")
    timings = {str(stage): float(ms) for stage, ms in document.get("milliseconds", {}).items()}
    if "dropped" in document:
        return FrameResult(
            header, dropped=str(document["dropped"]), reason=str(document.get("reason", "")),
            milliseconds=timings,
        )  # fmt: skip
    results: Sequence[Mapping[str, Any]] = document["results"]
    class_ids = tuple(int(each["class_id"]) for each in results)
    scores = tuple(float(each["score"]) for each in results)
    if not all(map(math.isfinite, scores)):
        raise ValueError("a score is not finite")
    labels.update({int(each["class_id"]): str(each.get("label", "")) for each in results})
    return FrameResult(header, Prediction(class_ids, scores), milliseconds=timings)


def in_stamp_order(frames: Iterable[FrameResult]) -> list[FrameResult]:
    """Sort results by stamp; those of the same stamp keep their order."""
    return sorted(frames, key=lambda frame: frame.header.nanoseconds)
