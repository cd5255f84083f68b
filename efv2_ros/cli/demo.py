"""`efv2 demo`: publish photos to the ROS node and print its results."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from efv2_ros.cli.console import latency_table, output
from efv2_ros.cli.options import ros_is_missing

if TYPE_CHECKING:
    from efv2_ros.client.demo import Result, Summary


@click.command()
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--frames",
    default=9,
    show_default=True,
    type=click.IntRange(1),
    help="Number of images to publish.",
)
@click.option(
    "--rate",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1, 1000.0),
    help="Images per second.",
)
@click.option(
    "--size", "model_size", default="s0", show_default=True, help="Model size s0, s1, s2."
)
@click.option("--model", "model_path", default="", metavar="FILE", help="Your own model file.")
@click.option("--offline", is_flag=True, help="Do not download a model.")
def demo(
    photos: tuple[Path, ...], frames: int, rate: float, model_size: str, model_path: str,
    offline: bool,
) -> None:  # fmt: skip
    """Start the ROS node, publish PHOTOs to it over DDS, and print its results.

    PHOTOS are files or folders; without any, the package's own photos are published. If there is
    no model and none can be downloaded, the untrained network stands in: its labels mean nothing.
    """
    from efv2_ros.pictures.photo import find_photos, read_photo
    from efv2_ros.resources import share_path

    try:
        from efv2_ros.client.demo import start
    except ImportError as error:
        raise ros_is_missing(error) from error
    parameters = {
        "model_size": model_size,
        "model_path": model_path,
        "allow_untrained": not model_path,
        "allow_download": not (offline or model_path),
    }
    pictures = [read_photo(path) for path in find_photos(photos or [share_path("photos")])]
    with ExitStack() as stack:
        with output.status("starting the classifier node"):
            node = stack.enter_context(start(parameters))
        output.print(Text.assemble((node.method, "bold"), f" takes images from {node.topic}"))
        for number, result in enumerate(node.stream(pictures, frames, 1.0 / rate), start=1):
            _print_result(number, result)
        _print_summary(node.summary())


def _print_result(number: int, result: Result) -> None:
    best, *others = (f"{score:6.1%} {name}" for score, name in result.classes)
    took = f" {result.seconds * 1e3:6.1f} ms  "
    photo = (f"{result.photo:<12}", "cyan")
    output.print(Text.assemble(f"{number:4d}  ", photo, took, (best, "bold")))
    for other in others:
        output.print(f"{'':30}{other}", style="dim")


def _print_summary(summary: Summary) -> None:
    stream, model = summary.stream, summary.model
    output.print(latency_table(summary.latencies))
    output.print(
        f"{stream['frames received']} images received, {stream['frames classified']} classified, "
        f"{stream['frames dropped']} dropped; {model['model']} on {model['runtime']}"
    )
    if "untrained" in model["model"]:
        output.print(
            "The network is untrained: no model was found, so its labels mean nothing.",
            style="yellow bold",
        )
        output.print(
            "`efv2 models fetch s0 --format onnx` downloads the trained one; then run this again.",
            style="yellow",
        )
