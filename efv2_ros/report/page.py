"""The page: what ran on what, and the sections, in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efv2_ros import __version__
from efv2_ros.errors import Efv2Error
from efv2_ros.replay.run import Run
from efv2_ros.report.classes import classes_section
from efv2_ros.report.drops import drop_rows, drops_section
from efv2_ros.report.latency import latency_section
from efv2_ros.report.markup import Html, element
from efv2_ros.report.series import Series, clock, series
from efv2_ros.report.thumbnails import encode


class ReportError(Efv2Error):
    """A report that cannot be written."""


def write_report(
    run: Run, path: Path, thumbnails: Mapping[int, NDArray[np.uint8]] | None = None
) -> None:
    """Write a run as an HTML page that needs no other file and no network.

    The same run and thumbnails give the same bytes.

    Args:
        run: The run.
        path: Of the page; its name is the title if the run names no bag.
        thumbnails: BGR pictures by their index in `run.frames`, uint8 of shape
            (height, width, 3) and any size; see `wanted_thumbnails`.

    Raises:
        ReportError: The file cannot be written.
    """
    page = _page(run, thumbnails or {}, path)
    try:
        # A label from JSON may hold half a character, which UTF-8 does not have.
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ReportError(f"cannot write the report {path}: {error.strerror}") from error


def _page(run: Run, thumbnails: Mapping[int, NDArray[np.uint8]], path: Path) -> str:
    shown = series(run)
    drops = drop_rows(run, shown)
    has_timings = bool(shown.stages)
    name, model = _names(run, path)
    style = Html(files(__package__).joinpath("page.css").read_text("utf-8"))
    script = Html(files(__package__).joinpath("page.js").read_text("utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"efv2_ros {__version__}"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{name}: {model}" if model else name),
        element("style", style),
    )
    body = element(
        "body",
        _header(run, shown, name, model),
        element(
            "main",
            latency_section(shown, drops),
            drops_section(run, shown, [] if has_timings else drops),
            classes_section(run, shown, encode(thumbnails)),
        ),
        element("footer", f"Made by efv2 report, efv2_ros {__version__}."),
        element("script", script),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"


def _policy(script: str) -> str:
    """Allows what the page holds itself, and nothing from anywhere else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def _names(run: Run, path: Path) -> tuple[str, str]:
    """What the page is about, the bag if it is known, and what saw it."""
    bag, model, runtime = (str(run.info.get(key) or "") for key in ("bag", "model", "runtime"))
    return Path(bag).name or path.stem, " on ".join(filter(None, [model, runtime]))


def _header(run: Run, series: Series, name: str, model: str) -> Html:
    problems = run.info.get("problems") or []
    return element(
        "header",
        element("h1", name),
        element("p", model, class_="lead"),
        *(element("p", _text(each), class_="problem") for each in problems),
        _key_figures(run, series),
        element("dl", *(element("div", element("dt", key), element("dd", value))
                        for key, value in _facts(run).items()), class_="facts"),
    )  # fmt: skip


def _facts(run: Run) -> dict[str, str]:
    """What is known of the run and is not in the title, as text."""
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
    return {key: text for key, text in facts.items() if text}


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def _key_figures(run: Run, series: Series) -> Html:
    total = len(run.frames) + sum(run.lost.values())
    classified, dropped = series.classified.size, sum(run.drops().values())
    duration = series.duration
    figures = [
        ("images", f"{total:,}", ""),
        ("classified", f"{classified:,}", f"{classified / total:.1%}" if total else ""),
        ("dropped", f"{dropped:,}", f"{dropped / total:.1%}" if total else ""),
        ("duration", f"{duration:.2f} s" if duration < 120 else clock(duration, 1),
         "" if duration < 120 else "h:min:s" if duration >= 3600 else "min:s"),
        ("rate", f"{(total - 1) / duration:.1f}" if duration else "unknown",
         "images a second" if duration else "no two stamps differ"),
    ]  # fmt: skip
    return element(
        "dl",
        *(
            element("div", element("dt", label),
                    element("dd", f"{value} ", element("small", note)))
            for label, value, note in figures
        ),
        class_="key",
    )  # fmt: skip
