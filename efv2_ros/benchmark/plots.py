"""Plots of the measured distributions. Requires matplotlib, an optional dependency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from efv2_ros.benchmark.report import Distribution, Report
from efv2_ros.errors import Efv2Error
from efv2_ros.figures import matplotlib, save

_COLUMNS = 4
_SHOWN = 99
"""Percentile up to which durations are drawn, so that one outlier does not squeeze the rest."""


def check() -> None:
    """Check that plots can be drawn, before anything is measured.

    Raises:
        Efv2Error: matplotlib is not installed.
    """
    matplotlib()


def write(report: Report, folder: Path) -> list[Path]:
    """Write a PNG with the cumulative distributions of each part that has any.

    Args:
        report: The measurements.
        folder: Folder to write to; it is made if it does not exist.

    Raises:
        Efv2Error: There is no matplotlib, or the folder cannot be written to.
    """
    library = matplotlib()
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in report.parts.items():
            if part.distributions:
                path = folder / f"{name}.png"
                save(_draw(library, list(part.distributions)), path)
                written.append(path)
    except OSError as error:
        raise Efv2Error(f"cannot write the plots: {error}") from error
    return written


def _draw(library: Any, distributions: list[Distribution]) -> Any:
    columns = min(_COLUMNS, len(distributions))
    rows = -(-len(distributions) // columns)
    size = (8.0, 4.5) if len(distributions) == 1 else (4.5 * columns, 3.2 * rows)
    figure = library.figure.Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for spare in panels[len(distributions) :]:
        spare.set_visible(False)
    for axes, distribution in zip(panels, distributions, strict=False):
        for label, samples in distribution.series.items():
            ordered = np.sort(samples)
            axes.step(ordered, np.arange(1, ordered.size + 1) / ordered.size * 100,
                      where="post", label=label)  # fmt: skip
        for number, (label, limit) in enumerate(distribution.limits.items()):
            axes.axvline(limit, color="black", linestyle=("--", ":")[number % 2], label=label)
        axes.set_title(distribution.title, fontsize="medium")
        shown = [float(np.percentile(each, _SHOWN)) for each in distribution.series.values()]
        axes.set_ylim(0, 102)
        axes.set_xlim(0, max([*shown, *distribution.limits.values()]) * 1.05)
        axes.set_xlabel(f"milliseconds (up to the {_SHOWN}th percentile)")
        axes.set_ylabel("share of calls or images (%)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure
