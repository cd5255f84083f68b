"""`efv2`, the command line: classify photos, manage models, see what is here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from efv2_ros import __version__
from efv2_ros.classifier import Classified, Classifier, load_model
from efv2_ros.cli_evaluate import evaluate
from efv2_ros.cli_measure import bench, perf
from efv2_ros.cli_models import models
from efv2_ros.cli_options import (
    model_options,
    ros_is_missing,
    split_request,
    split_view,
    view_options,
)
from efv2_ros.cli_play import play
from efv2_ros.cli_record import record_demo
from efv2_ros.cli_replay import replay
from efv2_ros.cli_report import report
from efv2_ros.console import download_bar, messages, output, warn_untrained
from efv2_ros.errors import Efv2Error
from efv2_ros.vision.frame import FrameError


class _Group(click.Group):
    """Shows errors meant for people as one line, with exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (Efv2Error, FrameError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="efv2")
def main() -> None:
    """EfficientFormerV2 image classification for the RDK X5 and any other machine."""


for _command in (models, bench, evaluate, perf, play, record_demo, replay, report):
    main.add_command(_command)


@main.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_options
@view_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--annotate",
    "annotated",
    metavar="OUT.jpg",
    type=click.Path(path_type=Path),
    help="Write the photo with its results drawn on it; a folder for several photos.",
)
def classify(
    photos: tuple[Path, ...],
    as_json: bool,
    annotated: Path | None,
    **options: Any,
) -> None:
    """Say what is on PHOTOs, or on all photos of a folder."""
    from efv2_ros.vision.photo import find_photos, read_photo

    files = find_photos(photos)
    with download_bar() as progress:
        model = load_model(split_request(options), progress)
    classifier = Classifier(model, split_view(options))
    if model.file.untrained:
        warn_untrained()
    reports, failures = [], 0
    for file in files:
        try:
            frame = read_photo(file)
            result = classifier.classify(frame)
            if annotated:
                _write_annotated(_annotated_path(annotated, file, len(files)), frame, result)
        except FrameError as error:
            failures += 1
            messages.print(f"[red]{file}: {error}[/red]", highlight=False)
            continue
        if as_json:
            reports.append(_report(file, result))
        else:
            output.print(_table(file, result))
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    if failures:
        sys.exit(1)


@main.command()
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--frames",
    default=9,
    show_default=True,
    type=click.IntRange(1),
    help="How many images to publish.",
)
@click.option(
    "--rate",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1, 1000.0),
    help="Images a second.",
)
@click.option("--size", "model_size", default="s0", show_default=True, help="Model size.")
@click.option("--model", "model_path", default="", metavar="FILE", help="A model file.")
@click.option("--offline", is_flag=True, help="Do not try to download a model.")
def demo(
    photos: tuple[Path, ...], frames: int, rate: float, model_size: str, model_path: str,
    offline: bool,
) -> None:  # fmt: skip
    """Show the ROS node at work on PHOTOs, or a folder's.

    They are published over DDS, and what comes back is printed.

    Where no model is found and none can be downloaded, the untrained network shows the way.
    """
    from efv2_ros.resources import share_path
    from efv2_ros.vision.photo import find_photos

    try:
        from efv2_ros.node import demo as node_demo
    except ImportError as error:
        raise ros_is_missing(error) from error
    parameters = {
        "model_size": model_size,
        "model_path": model_path,
        "allow_untrained": not model_path,
        "allow_download": not (offline or model_path),
    }
    files = find_photos(photos or [share_path("photos")])
    node_demo.run(files, frames, rate, parameters, output)


@main.command()
def doctor() -> None:
    """Say what is here and what to do about what is missing."""
    from efv2_ros.doctor import examine

    table = Table(show_header=False, box=None)
    marks = {"ok": "[green]ok[/green]", "missing": "[red]missing[/red]", "info": "[blue]-[/blue]"}
    with output.status("looking"):
        findings = list(examine())
    for finding in findings:
        table.add_row(marks[finding.verdict], finding.subject, escape(finding.detail))
        if finding.cure:
            table.add_row("", "", f"[bold]-> {escape(finding.cure)}[/bold]")
    output.print(table)


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


def _annotated_path(target: Path, photo: Path, count: int) -> Path:
    if count == 1 and not target.is_dir():
        return target
    target.mkdir(parents=True, exist_ok=True)
    return target / f"{photo.stem}.jpg"


def _write_annotated(path: Path, frame: Any, result: Classified) -> None:
    import cv2

    from efv2_ros.vision.annotate import annotate, to_bgr

    image = to_bgr(frame)
    annotate(image, result.lines())
    try:
        written = cv2.imwrite(str(path), image)
    except cv2.error:  # the suffix names no format OpenCV writes
        written = False
    if not written:
        raise click.ClickException(f"cannot write {path}: is it a .jpg or .png in a folder?")


if __name__ == "__main__":
    main(prog_name="efv2")
