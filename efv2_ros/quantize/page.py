"""The report for people: one HTML page that needs nothing else, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from efv2_ros import __version__
from efv2_ros.quantize.calibration import Sample, rgb_from_nv12
from efv2_ros.quantize.fidelity import MOST_CHANGED
from efv2_ros.quantize.proof import operator
from efv2_ros.quantize.report import Outcome
from efv2_ros.report.scales import count
from efv2_ros.report.thumbnails import Thumbnail, encode
from efv2_ros.runtimes.base import ImageInput

LAYERS = 20
"""Number of layers that are listed."""

_BINS = 25
_CALIBRATED = 12
"""Number of calibration images that the page shows."""

WAITS = {
    "compute": "the BPU computes",
    "ddr": "weights and values come from and go to memory",
    "layout": "values only change their places",
    "": "nothing",
}
"""What a layer's time is spent on, in words."""


class Bar(NamedTuple):
    """A bar of a histogram: percentages of the width and height, and what it stands for."""

    x: str
    width: str
    height: str
    text: str


class Frame(NamedTuple):
    """An image of the page: its thumbnail, and what the report says of it."""

    thumbnail: Thumbnail | None
    change: Mapping[str, Any]


class Histogram(NamedTuple):
    """How often each cosine occurred; ticks are texts at percentages of the width."""

    bars: Sequence[Bar]
    ticks: Sequence[tuple[str, str]]


def html(outcome: Outcome, report: Mapping[str, Any]) -> str:
    """Render the page.

    Args:
        outcome: The outcome, for its pixels.
        report: The same as `report.as_dict` describes it.
    """
    return _render("page.html", outcome, report)


def markdown(outcome: Outcome, report: Mapping[str, Any]) -> str:
    """Render the report as Markdown; see `html`."""
    return _render("report.md", outcome, report)


def _render(template: str, outcome: Outcome, report: Mapping[str, Any]) -> str:
    fidelity = outcome.fidelity
    estimate = report["estimate"]
    calibrated, changed = _thumbnails(outcome)
    environment = _environment(template.endswith(".html"))
    return environment.get_template(template).render(
        report=report,
        figures=figures(report),
        layers=estimate["layers"][:LAYERS] if estimate else [],
        waits=WAITS,
        histogram=_histogram(fidelity.cosines) if fidelity else None,
        frames=[
            Frame(changed.get(number), change)
            for number, change in enumerate((report["fidelity"] or {}).get("most_changed", ()))
        ],
        calibrated=list(calibrated.values()),
        failures=[each for each in report["proof"] if each["holds"] is False],
    )


@cache
def _environment(escaped: bool) -> Environment:
    """Make the environment of the templates."""
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=escaped, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    shared = files("efv2_ros.report").joinpath("templates/page.css").read_text("utf-8")
    own = files(__package__).joinpath("templates/page.css").read_text("utf-8")
    environment.globals.update(version=__version__, style=Markup(shared + own), count=count)
    environment.filters.update(
        percent=_percent, mib=_mib, interval=_interval, cell=_cell, operator=operator
    )
    return environment


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _mib(size: float) -> str:
    return f"{size / 1e6:.2f} MB"


def _interval(interval: Sequence[float]) -> str:
    low, high = (f"{each * 100:.1f}" for each in interval)
    return f"{low} to {high} %"


def _cell(text: object) -> str:
    """Make a text fit for a cell of a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").split())


def figures(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key figures: name, value, note."""
    found: list[tuple[str, str, str]] = []
    estimate, fidelity = report["estimate"], report["fidelity"]
    if estimate:
        found += [
            ("latency", f"{estimate['milliseconds']:.2f} ms", "estimated"),
            ("throughput", f"{estimate['fps']:.0f}", "frames a second"),
            ("memory traffic", f"{estimate['ddr_bytes'] / 1e6:.2f} MB", "a frame"),
        ]
    if fidelity:
        agreement, cosine = fidelity["agreement"], fidelity["cosine"]
        found += [
            ("cosine of logits", f"{cosine['mean']:.4f}", f"least {cosine['min']:.4f}"),
            ("same best class", _percent(agreement["share"]), _interval(agreement["interval"])),
        ]
        if fidelity["accuracy"] and not report["model"]["untrained"]:
            accuracy = fidelity["accuracy"]
            found += [
                ("top-1, quantised", _percent(accuracy["quantised"]["share"]),
                 f"float {_percent(accuracy['float']['share'])}"),
            ]  # fmt: skip
    return found


def _histogram(cosines: NDArray[np.float64]) -> Histogram:
    """Make bars of the cosines between a round number below the least one and 1."""
    spread = max(1 - float(cosines.min()), 1e-6)
    step = 10.0 ** np.floor(np.log10(spread))
    width = step * next(each for each in (1, 2, 5, 10) if each * step >= spread)
    counts, edges = np.histogram(cosines, _BINS, (1 - width, 1.0))
    tallest = counts.max() or 1
    bars = [
        Bar(
            f"{100 * place / _BINS:g}%", f"{100 / _BINS:g}%", f"{100 * number / tallest:.1f}%",
            f"{count(int(number), 'image')}: {edges[place]:.4f} to {edges[place + 1]:.4f}",
        )
        for place, number in enumerate(counts)
    ]  # fmt: skip
    digits = max(2, int(np.ceil(-np.log10(width))) + 2)
    ticks = [(f"{25 * each:g}%", f"{1 - width * (1 - each / 4):.{digits}f}") for each in range(5)]
    return Histogram(bars, ticks)


def _thumbnails(outcome: Outcome) -> tuple[dict[int, Thumbnail], dict[int, Thumbnail]]:
    """Thumbnails of some calibration images and of the most changed ones, by their places."""
    image = outcome.inputs.source.model.image
    samples = outcome.inputs.images.calibration[:_CALIBRATED]
    changed = [each.sample for each in (outcome.fidelity.changes if outcome.fidelity else ())]
    return encode(_pictures(samples, image)), encode(_pictures(changed[:MOST_CHANGED], image))


def _pictures(samples: Sequence[Sample], image: ImageInput) -> dict[int, NDArray[np.uint8]]:
    """Pictures as the model sees them, BGR, by their places."""
    return {
        place: np.ascontiguousarray(
            rgb_from_nv12(each.nv12, image)[0, ::-1]
            .transpose(1, 2, 0)
            .clip(0, 255)
            .astype(np.uint8)
        )
        for place, each in enumerate(samples)
        if each.nv12 is not None
    }
