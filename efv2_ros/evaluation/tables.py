"""Tables of an evaluation's figures for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_SHOWN = 5
"""Rows at either end of a table of extremes."""


def tables(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Make what to print of a summary made by `summarize`."""
    models = summary["models"]
    yield _accuracies(summary)
    if "comparison" in summary:
        yield from _comparison(summary["comparison"])
    if max(each["images"] for each in models[0]["by_class"]) > 1:
        yield _classes(models)
    if any(each["images"] > 1 for each in models[0]["confusions"]):
        yield _confusions(models[0]["confusions"])


def _accuracies(summary: Mapping[str, Any]) -> Table:
    models = summary["models"]
    sizes = {each["images"] for each in models[0]["by_class"]}
    means = {"mean of\nclasses (%)": "mean_of_classes_percent"} if len(sizes) > 1 else {}
    published = {"published\ntop-1 (%)": "published_top1_percent"}
    if all(each["published_top1_percent"] is None for each in models):
        published = {}
    table = _table(
        f"{summary['images']:,} images of {len(models[0]['by_class']):,} classes in "
        f"{summary['settings']['folder']}",
        ("runtime", "file"),
        ("top-1 (%)\n95 % interval", "top-5 (%)\n95 % interval", *means, *published),
    )
    for each in models:
        table.add_row(
            _text(f"{each['runtime']} {each['version']} ({each['device']})"),
            _text(Path(each["file"]).name),
            _cell(each["top1"]),
            _cell(each["top5"]),
            *(_figure(each[key]) for key in (means | published).values()),
        )
    return table


def _comparison(comparison: Mapping[str, Any]) -> Iterator[RenderableType]:
    sides = ("float", "quantised")
    if comparison["difference"] != "float minus quantised":
        sides = ("first", "second")
    table = _table(
        comparison["difference"],
        ("accuracy",),
        (
            "points\n95 % interval", f"only {sides[0]}\nright", f"only {sides[1]}\nright",
            "McNemar's p",
        ),
    )  # fmt: skip
    for key, name in (("top1", "top-1"), ("top5", "top-5")):
        row = comparison[key]
        table.add_row(
            name, _cell(row, "+"), f"{row['only_first_right']:,}",
            f"{row['only_second_right']:,}", f"{row['mcnemar_p']:.2g}",
        )  # fmt: skip
    yield table
    same, cosine = comparison["same_top1"], comparison["cosine"]
    yield _text(
        f"same top-1: {same['right']:,} of {same['images']:,} images, {_cell(same)} %\n"
        f"cosine of the logits: mean {cosine['mean']:.4f}, lowest {cosine['min']:.4f} of "
        f"{cosine['min_file']}"
    )


def _classes(models: Sequence[Mapping[str, Any]]) -> Table:
    rows = list(zip(*(each["by_class"] for each in models), strict=True))
    rows.sort(key=lambda row: (row[0]["percent"], -row[0]["images"], row[0]["class_id"]))
    title = "classes, lowest top-1 first"
    if len(rows) > 2 * _SHOWN:
        title = f"the {_SHOWN} classes of lowest and the {_SHOWN} of highest top-1"
        highest = sorted(
            rows[_SHOWN:],
            key=lambda row: (-row[0]["percent"], -row[0]["images"], row[0]["class_id"]),
        )
        rows = rows[:_SHOWN] + highest[:_SHOWN]
    names = [""] if len(models) == 1 else [f" {each['runtime']}" for each in models]
    table = _table(
        title,
        ("class", "label"),
        ("images", *(f"top-1{name} (%)\n95 % interval" for name in names)),
    )
    for number, row in enumerate(rows):
        table.add_row(
            str(row[0]["class_id"]), _text(row[0]["label"]), f"{row[0]['images']:,}",
            *(_cell(each) for each in row),
            end_section=len(rows) == 2 * _SHOWN and number == _SHOWN - 1,
        )  # fmt: skip
    return table


def _confusions(confusions: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "most frequent confusions", ("class", "label", "taken for", "label"), ("images",)
    )
    for each in confusions[:_SHOWN]:
        table.add_row(
            str(each["class_id"]), _text(each["label"]), str(each["taken_for"]),
            _text(each["taken_for_label"]), f"{each['images']:,}",
        )  # fmt: skip
    return table


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=_text(title, "table.title"), title_justify="left")
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cell(row: Mapping[str, Any], sign: str = "") -> str:
    """Format a percentage and its interval."""
    low, high = row["interval_percent"]
    return f"{row['percent']:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _text(text: str, style: str = "") -> Text:
    """Make text that rich prints as it is: it may hold brackets, colons, or undecodable names."""
    return Text(text.encode(errors="replace").decode(), style)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
