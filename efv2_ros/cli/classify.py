"""`efv2 classify`: classes of photos."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from efv2_ros.classify.classifier import Classified, Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.cli.annotated import annotated_paths, write_annotated
from efv2_ros.cli.console import download_bar, messages, output, warn_untrained
from efv2_ros.cli.options import model_options, split_request, split_view, view_options
from efv2_ros.vision.frame import FrameError


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_options
@view_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--annotate",
    "annotated",
    metavar="OUT.jpg",
    type=click.Path(path_type=Path),
    help="Draw the results on the photo and write it here; for several photos, a folder.",
)
def classify(
    photos: tuple[Path, ...],
    as_json: bool,
    annotated: Path | None,
    **options: Any,
) -> None:
    """Classify PHOTOs, or all photos of a folder.

    --annotate never overwrites a photo. In a folder, each photo becomes NAME.jpg; photos of the
    same name get their folders' names in front.
    """
    from efv2_ros.pictures.photo import find_photos, read_photo

    files = find_photos(photos)
    targets: list[Path | None] = [None] * len(files)
    if annotated:
        targets = [*annotated_paths(files, annotated)]
    with download_bar() as progress:
        model = load_model(split_request(options), progress)
    reports, failures = [], 0
    with closing(model):
        classifier = Classifier(model, split_view(options))
        if model.file.untrained:
            warn_untrained()
        for file, target in zip(files, targets, strict=True):
            try:
                frame = read_photo(file, classifier.options.max_pixels)
                result = classifier.classify(frame)
                if target is not None:
                    write_annotated(target, frame, result)
            except FrameError as error:
                failures += 1
                messages.print(f"{file}: {error}", style="red", soft_wrap=True)
                continue
            if as_json:
                reports.append(_report(file, result))
            else:
                output.print(_table(file, result))
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    if failures:
        sys.exit(1)


def _report(file: Path, result: Classified) -> dict[str, Any]:
    prediction, model = result.prediction, result.model
    return {
        "file": str(file),
        "model": model.name,
        "runtime": model.runtime.info.name,
        "untrained": model.file.untrained,
        "results": [
            {"class_id": class_id, "label": model.labels[class_id], "score": score}
            for class_id, score in zip(prediction.class_ids, prediction.scores, strict=True)
        ],
        "milliseconds": {
            "convert": round(result.convert * 1e3, 3),
            "infer": round(result.infer * 1e3, 3),
            "postprocess": round(result.postprocess * 1e3, 3),
        },
    }


def _table(file: Path, result: Classified) -> Table:
    model = result.model
    table = Table(
        title=str(file),
        caption=f"{model.name} on {model.runtime.info.name}: convert {result.convert * 1e3:.2f}, "
        f"infer {result.infer * 1e3:.2f}, postprocess {result.postprocess * 1e3:.2f} ms",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("score", justify="right")
    table.add_column("class", justify="right")
    table.add_column("label")
    for class_id, score in zip(*result.prediction, strict=True):
        table.add_row(f"{score:.1%}", str(class_id), model.labels[class_id])
    return table
