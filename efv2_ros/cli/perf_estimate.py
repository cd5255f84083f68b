"""`efv2 perf --estimate`: the zoo's table beside the compiler's estimates for each recipe."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.table import Table

from efv2_ros.cli.console import messages, output
from efv2_ros.models.catalog import Catalog, ModelSpec
from efv2_ros.models.efficientformerv2.builder import SIZES
from efv2_ros.models.inputs import expand_user
from efv2_ros.quantize.estimates import Row, cells, read_estimates, rows, shipped_recipes

_HEADINGS = ("size", "recipe", "ms", "FPS", "DDR MB", "cosine", "least", "agreement")


def show(catalog_file: str, *, as_json: bool) -> None:
    """Print what the publisher measured on a board, and what the compiler estimates.

    Args:
        catalog_file: A catalog of the user's; may be empty.
        as_json: Whether to print JSON.

    Raises:
        Efv2Error: The catalog, a recipe or the estimates cannot be read.
    """
    catalog = Catalog.load(*([expand_user(catalog_file)] if catalog_file else []))
    specs: dict[str, ModelSpec] = {each.size: each for each in catalog if each.size in SIZES}
    found = rows(read_estimates(), shipped_recipes(), list(specs))
    if as_json:
        click.echo(json.dumps(_document(specs, found), indent=2))
        return
    table = Table(title="published for a board, and estimated by the compiler",
                  title_justify="left")  # fmt: skip
    for place, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=place > 1)
    for size, spec in specs.items():
        table.add_row(size, "published", *_published(spec), style="bold")
        for row in found:
            if row.size == size:
                mark = "*" if row.note else ""
                name, *figures = list(cells(row))[1:]
                table.add_row(size, f"{name}{mark}", *figures)
        table.add_section()
    output.print(table)
    _print_notes(found)


def _published(spec: ModelSpec) -> tuple[str, ...]:
    figures = (("latency_1_thread_ms", ".2f"), ("throughput_fps", ".0f"))
    known = [(spec.published.get(name), form) for name, form in figures]
    return tuple("" if value is None else f"{value:{form}}" for value, form in known)


def _print_notes(found: list[Row]) -> None:
    for line in (
        "published: the zoo's figures, of a board with one thread (ms) and four (FPS).",
        "All other rows: the compiler's estimates, not a board's, of one frame and one core. "
        "Cosine and agreement with the float model are measured, on images that were not "
        "calibrated with.",
    ):
        output.print(line, soft_wrap=True)
    entries = [row.entry for row in found if row.entry is not None]
    for weights in sorted({each.weights for each in entries}):
        chosen = [each for each in entries if each.weights == weights]
        images = sorted({each.images for each in chosen})
        output.print(
            f"Weights: {weights}; {'/'.join(map(str, images))} images; compiled at "
            f"{'/'.join(sorted({each.level for each in chosen}))}.",
            soft_wrap=True,
        )
    for row in found:
        if row.note:
            messages.print(f"* {row.size} {row.recipe}: {row.note}", style="yellow")


def _document(specs: dict[str, ModelSpec], found: list[Row]) -> dict[str, object]:
    return {
        "published_on": "a board",
        "estimated_by": "the compiler",
        "sizes": {
            size: {
                "published": dict(spec.published),
                "estimates": [
                    {
                        "recipe": row.recipe,
                        "note": row.note,
                        "figures": None if row.entry is None else asdict(row.entry),
                    }
                    for row in found
                    if row.size == size
                ],
            }
            for size, spec in specs.items()
        },
    }
