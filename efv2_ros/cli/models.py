"""`efv2 models`: list, fetch, verify and build the models of the catalog."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from efv2_ros.cli.console import download_bar, output
from efv2_ros.models.catalog import Catalog
from efv2_ros.models.efficientformerv2.builder import CLASSES, SIZES, Size
from efv2_ros.models.modelfile import MODEL_FORMATS, ModelFormat
from efv2_ros.models.store import fetch as fetch_model
from efv2_ros.models.store import inventory


@click.group()
def models() -> None:
    """List, fetch, verify and build the models of the catalog."""


_catalog_option = click.option(
    "--catalog", "catalog_file", metavar="FILE", type=click.Path(path_type=Path),
    help="A YAML catalog of your own models.",
)  # fmt: skip


def _catalog(file: Path | None) -> Catalog:
    return Catalog.load(*([file] if file else []))


@models.command("list")
@_catalog_option
def list_models(catalog_file: Path | None) -> None:
    """Show all models of the catalog and where their files are."""
    table = Table()
    for column in ("size", "format", "where", "bytes", "sha256"):
        table.add_column(column, overflow="fold" if column == "where" else "ellipsis")
    for each in inventory(_catalog(catalog_file)):
        where = Text(str(each.path)) if each.path else Text("not here", "dim")
        if each.problem:
            where = Text(each.problem, "red")
        table.add_row(
            each.spec.size, each.format, where,
            f"{each.size:,}" if each.size else "", (each.sha256 or "")[:12],
        )  # fmt: skip
    output.print(table)


@models.command()
@click.argument("sizes", nargs=-1, required=True)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(MODEL_FORMATS),
    help="onnx for any machine, bin for the board; default: both.",
)
@click.option(
    "--update",
    is_flag=True,
    help="Fetch again and accept the file even if it differs from the first download.",
)
@_catalog_option
def fetch(
    sizes: tuple[str, ...],
    formats: tuple[ModelFormat, ...],
    update: bool,
    catalog_file: Path | None,
) -> None:
    """Download models of SIZES into the cache. Interrupted downloads continue where they ended."""
    catalog = _catalog(catalog_file)
    for size in sizes:
        spec = catalog[size]
        for each in formats or tuple(spec.files):
            with download_bar() as progress:
                found = fetch_model(spec, each, update=update, on_progress=progress)
            how = "fetched" if found.origin == "download" else "already here"
            output.print(f"{spec.size} .{each} {how}: {found.path}", soft_wrap=True)


@models.command()
@_catalog_option
def verify(catalog_file: Path | None) -> None:
    """Compare all models on this machine with their lock files."""
    bad = 0
    for each in inventory(_catalog(catalog_file)):
        if each.path is None:
            continue
        name = f"{each.spec.size} .{each.format} {each.path}"
        if each.problem:
            bad += 1
            line = Text.assemble(("bad", "red"), f"  {each.problem}")
        elif each.locked:
            line = Text.assemble(("good", "green"), f" {name}")
        else:
            line = Text.assemble(("read", "blue"), f" {name}: no lock file to compare with")
        output.print(line, soft_wrap=True)
    if bad:
        sys.exit(1)


@models.command()
@click.argument("size", type=click.Choice(SIZES))
@click.argument("target", metavar="OUT.onnx", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    metavar="model.safetensors",
    type=click.Path(path_type=Path),
    help="timm's weights; default: random weights.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of the random weights.",
)
@click.option(
    "--classes",
    default=CLASSES,
    show_default=True,
    type=click.IntRange(1),
    help="Number of classes of the random weights; trained ones know theirs.",
)
def build(size: Size, target: Path, weights: Path | None, seed: int, classes: int) -> None:
    """Build EfficientFormerV2 of SIZE (s0, s1, s2, l) as an ONNX file, from timm's weights."""
    from efv2_ros.models.efficientformerv2.builder import load_state, seeded_state, write

    state = load_state(weights, size) if weights else seeded_state(size, seed, classes)
    write(target, state)
    output.print(f"wrote {target}", soft_wrap=True)
