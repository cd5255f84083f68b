"""The HTML page of a run: one file with everything in it, made from the templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from efv2_ros.replay.run import Run
from efv2_ros.report import charts
from efv2_ros.report.classes import summarize_classes
from efv2_ros.report.drops import summarize_drops
from efv2_ros.report.latency import summarize_latency
from efv2_ros.report.rendering import write_page
from efv2_ros.report.series import COLUMNS, Series, clock, series
from efv2_ros.report.thumbnails import encode


def write_report(
    run: Run, path: Path, thumbnails: Mapping[int, NDArray[np.uint8]] | None = None
) -> None:
    """Write a run as an HTML page that needs no other file and no network.

    The same run and thumbnails give the same bytes.

    Args:
        run: The run.
        path: The page; its name is the title if the run names no bag.
        thumbnails: BGR pictures by their index in `run.frames`, uint8 of shape
            (height, width, 3) and any size; see `wanted_thumbnails`.

    Raises:
        FileWriteError: The file cannot be written.
    """
    values = series(run)
    write_page(
        path, "page.html", ["page.css"], ["marks.js", "page.js"],
        header=_header(run, values, path),
        axis=values.axis,
        ticks=charts.axis_ticks(values.axis),
        has_low_marks=values.positions.size > COLUMNS,
        latency=summarize_latency(values),
        drops=summarize_drops(run, values),
        classes=summarize_classes(run, values, encode(thumbnails or {})),
    )  # fmt: skip


class Header(NamedTuple):
    """What the page says first.

    Attributes:
        name: Name of the bag, or of the page.
        model: The model and its runtime.
        problems: What was wrong with the bag.
        figures: Key figures: name, value, note.
        facts: Everything else that is known of the run: name, value.
    """

    name: str
    model: str
    problems: list[str]
    figures: list[tuple[str, str, str]]
    facts: list[tuple[str, str]]


def _header(run: Run, series: Series, path: Path) -> Header:
    bag, model, runtime = (str(run.info.get(key) or "") for key in ("bag", "model", "runtime"))
    problems = run.info.get("problems") or []
    return Header(
        Path(bag).name or path.stem,
        " on ".join(filter(None, [model, runtime])),
        [_text(each) for each in (problems if isinstance(problems, list) else [problems])],
        _key_figures(run, series),
        _facts(run),
    )


def _facts(run: Run) -> list[tuple[str, str]]:
    known = {"bag": "", "topic": "", **run.info}
    if run.frames:
        first = run.frames[0].header
        known["first stamp"] = f"{first.sec}.{first.nanosec:09} s"
    facts: dict[str, str] = {}
    for key, value in known.items():
        if isinstance(value, Mapping):
            facts |= {str(name): _text(each) for name, each in value.items()}
        elif key not in ("model", "runtime", "problems"):
            facts[key] = _text(value)
    return [(key, text) for key, text in facts.items() if text]


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def _key_figures(run: Run, series: Series) -> list[tuple[str, str, str]]:
    total = len(run.frames) + sum(run.lost.values())
    classified, dropped = series.classified.size, sum(run.drops().values())
    duration = series.duration
    return [
        ("images", f"{total:,}", ""),
        ("classified", f"{classified:,}", f"{classified / total:.1%}" if total else ""),
        ("dropped", f"{dropped:,}", f"{dropped / total:.1%}" if total else ""),
        ("duration", f"{duration:.2f} s" if duration < 120 else clock(duration, 1),
         "" if duration < 120 else "h:min:s" if duration >= 3600 else "min:s"),
        ("rate", f"{(total - 1) / duration:.1f}" if duration else "unknown",
         "images a second" if duration else "all stamps are equal"),
    ]  # fmt: skip
