"""`efv2 demo`: publish photos to the ROS node and print its results."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.text import Text

from efv2_ros.cli.console import download_bar, latency_table, messages, output
from efv2_ros.cli.options import ros_is_missing

if TYPE_CHECKING:
    from efv2_ros.client.demo import Result, Summary

_DEFAULT, _CARDS = "s0", "cards"
"""Models of the catalog: the one to show, and the one that is in the package."""

_PHOTO_FRAMES = 9


class _Choice(NamedTuple):
    """The model to show.

    Attributes:
        parameters: The node's parameters for it.
        reason: Why it is this one, as a sentence; may be empty.
    """

    parameters: dict[str, Any]
    reason: str = ""

    @property
    def is_cards(self) -> bool:
        """Whether it is the network of the cards."""
        return self.parameters.get("model_size") == _CARDS


@click.command()
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--frames",
    type=click.IntRange(1),
    help="Number of images to publish.  [default: each card once, 9 of photos]",
)
@click.option(
    "--rate",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1, 1000.0),
    help="Images per second.",
)
@click.option(
    "--size",
    "model_size",
    default="",
    help="Model size s0, s1, s2 or cards.  [default: s0, or cards where s0 cannot be had]",
)
@click.option("--model", "model_path", default="", metavar="FILE", help="Your own model file.")
@click.option("--offline", is_flag=True, help="Do not download a model.")
def demo(
    photos: tuple[Path, ...], frames: int | None, rate: float, model_size: str, model_path: str,
    offline: bool,
) -> None:  # fmt: skip
    """Start the ROS node, publish PHOTOs to it over DDS, and print its results.

    PHOTOS are files or folders; without any, the package's own are published. If s0, which knows
    ImageNet's 1000 classes, is not here and cannot be downloaded, the network of 100 cards does
    it: it is in the package, and so are 50 of the cards.
    """
    from efv2_ros.pictures.photo import find_photos, read_photo
    from efv2_ros.resources import share_path

    try:
        from efv2_ros.client.demo import start
    except ImportError as error:
        raise ros_is_missing(error) from error
    # Before the model, which may have to be downloaded: they may be the wrong ones.
    pictures = [read_photo(path) for path in find_photos(photos)] if photos else []
    choice = _choose(model_size, model_path, offline)
    if choice.reason:
        messages.print(choice.reason, style="yellow", soft_wrap=True)
    truth: dict[str, str] = {}
    if not photos:
        own = share_path("photos")
        if choice.is_cards:
            own, truth = own / "cards", _card_names()
        pictures = [read_photo(path) for path in find_photos([own])]
    count = frames or (len(pictures) if truth else _PHOTO_FRAMES)
    right = 0
    with ExitStack() as stack:
        with output.status("starting the classifier node"):
            node = stack.enter_context(start(choice.parameters))
        output.print(Text.assemble((node.method, "bold"), f" takes images from {node.topic}"))
        for number, result in enumerate(node.stream(pictures, count, 1.0 / rate), start=1):
            if truth:
                right += _print_card(number, result, truth[Path(result.photo).stem])
            else:
                _print_result(number, result)
        _print_summary(node.summary())
    if truth:
        output.print(f"{right} of {count} cards have their right name", style="bold")


def _choose(model_size: str, model_path: str, offline: bool) -> _Choice:
    """Choose the model that was asked for, or s0, or else the one that is in the package."""
    from efv2_ros.classify.model import find_model
    from efv2_ros.classify.options import ModelRequest
    from efv2_ros.models.modelfile import ModelError

    if model_path:
        return _Choice({"model_path": model_path})
    asked: dict[str, Any] = {"model_size": model_size or _DEFAULT, "allow_download": not offline}
    if model_size:
        return _Choice(asked)
    try:
        with download_bar() as on_download:
            find_model(ModelRequest(**asked), on_download)
    except ModelError as error:
        return _Choice(
            # Its weights make a model for ONNX Runtime alone.
            {"model_size": _CARDS, "runtime": "onnx"},
            f"{error}\nThe package's own network looks at the images instead. It was trained on "
            "pictures of 100 things, such as cat face, pizza and fire engine, and knows nothing "
            "else.",
        )
    return _Choice(asked)


def _card_names() -> dict[str, str]:
    """The name of each card's class, by the name of its file."""
    from efv2_ros.models.catalog import Catalog
    from efv2_ros.models.labels import load_class_names

    spec = Catalog.load()[_CARDS]
    assert spec.labels is not None
    return {names[0]: names[-1] for names in load_class_names(spec.labels, spec.classes)}


def _print_card(number: int, result: Result, name: str) -> bool:
    """Print what a card was taken for; return whether it is that."""
    score, said = result.classes[0]
    is_right = said == name
    took = f"{result.seconds * 1e3:6.1f} ms  {score:6.1%} "
    mark = ("right", "green") if is_right else (f"wrong: it is {name}", "red")
    output.print(Text.assemble(f"{number:4d}  {took}", (f"{said:<28}", "bold"), mark))
    return is_right


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
