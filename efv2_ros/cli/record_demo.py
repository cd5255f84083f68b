"""`efv2 record-demo`: makes a bag from photos or a video."""

from __future__ import annotations

import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
from rich import filesize
from rich.text import Text

from efv2_ros.bags.demo_bag import (
    HBMEM,
    START,
    DemoCamera,
    Recorded,
    parse_rate,
    parse_stamp,
    record,
)
from efv2_ros.cli.console import INTERRUPTED, bar_total, image_bar, messages, output
from efv2_ros.cli.options import Parsed, table_option
from efv2_ros.pictures.encode import ENCODERS, FILE_SUFFIXES
from efv2_ros.signals import catch_stop

_PIXELS = click.IntRange(1, 16384)


@click.command("record-demo")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.option(
    "--encoding",
    type=click.Choice([*ENCODERS, *FILE_SUFFIXES]),
    help="Image encoding: jpeg and png make CompressedImage, the others Image.  "
    "[default: bgr8, or nv12 with --hbmem]",
)
@click.option(
    "--hbmem", type=click.Choice(HBMEM), help="Make TROS's HbmMsg of this size, in nv12."
)
@click.option(
    "--rate",
    type=Parsed("HZ", parse_rate),
    help="Images per second, 29.97 or 30000/1001.  [default: a video's own, 10 for photos]",
)
@click.option(
    "--frames",
    type=click.IntRange(1),
    help="Number of images; pictures repeat if there are fewer.  [default: each once]",
)
@click.option("--width", type=_PIXELS, help="Resize to this width.")
@click.option(
    "--height",
    type=_PIXELS,
    help="Resize to this height; width or height alone keeps the aspect ratio.",
)
@click.option(
    "--topic",
    default="",
    help="Topic of the images.  [default: /image; /image/compressed for jpeg and png, as in "
    "image_transport; /hbmem_img with --hbmem, as in TROS]",
)
@click.option("--frame-id", help="frame_id of the headers; HbmMsg has none.  [default: camera]")
@click.option(
    "--start",
    default=str(START),
    show_default=True,
    type=Parsed("SECONDS", parse_stamp),
    help="Stamp of the first image, with up to nine decimals.",
)
@click.option(
    "--camera-qos",
    default="reliable",
    show_default=True,
    type=click.Choice(["reliable", "best_effort"]),
    help="Reliability to record for the topic, with which players publish it.",
)
@click.option(
    "--storage",
    default="mcap",
    show_default=True,
    type=click.Choice(["mcap", "sqlite3"]),
    help="Storage format of the bag.",
)
@click.option(
    "--compress",
    "compression",
    default="none",
    show_default=True,
    type=click.Choice(["none", "chunk", "message", "file"]),
    help="Compression with zstd: chunk is mcap's own, message and file are rosbag2's.",
)
@table_option("max_pixels")
def record_demo(
    out: Path,
    paths: tuple[Path, ...],
    encoding: str | None,
    hbmem: str | None,
    rate: Fraction | None,
    frames: int | None,
    width: int | None,
    height: int | None,
    topic: str,
    frame_id: str | None,
    start: int,
    camera_qos: str,
    **bag: Any,
) -> None:
    """Make the bag OUT from photos, folders of photos, or a video.

    For tests and bug reports: needs neither a camera nor ROS. Image i, from 0, has the stamp
    START + i / RATE seconds, rounded to nanoseconds, so the same pictures and options make the
    same messages. JPEG and PNG files are copied unchanged if they have the encoding asked for and
    are not resized.

    A photo that cannot be read is left out. Ctrl-C or SIGTERM ends the bag after the image being
    written, with exit status 130; a second one removes the bag.
    """
    if hbmem and frame_id is not None:
        raise click.UsageError("--frame-id cannot be used with --hbmem: HbmMsg has no header")
    camera = DemoCamera(
        encoding or ("nv12" if hbmem else "bgr8"), hbmem or "", width or 0, height or 0, topic,
        "camera" if frame_id is None else frame_id, start, rate, camera_qos == "reliable",
    )  # fmt: skip
    with image_bar() as bar, catch_stop() as should_stop:
        task = bar.add_task(camera.topic_name, total=bar_total(None))
        recorded = record(
            out, paths, camera, frames=frames or 0, **bag,
            on_progress=lambda done, total: bar.update(
                task, completed=done, total=bar_total(max(done, total) if total else None)
            ),
            on_left_out=lambda reason: messages.print(
                f"left out: {reason}", style="yellow", soft_wrap=True
            ),
            should_stop=should_stop,
        )  # fmt: skip
    if recorded.frames:
        _summarize(out, camera, recorded)
    if should_stop():
        end = "the bag ends there" if recorded.frames else "there is no bag"
        messages.print(f"interrupted: {end}", style="yellow")
        sys.exit(INTERRUPTED)


def _summarize(out: Path, camera: DemoCamera, recorded: Recorded) -> None:
    images = "1 image" if recorded.frames == 1 else f"{recorded.frames} images"
    output.print(
        Text.assemble(
            f"{out}: {images} of {camera.encoding} on {camera.topic_name} ({camera.type_name}), "
            f"{recorded.duration / 1e9:g} s at {float(recorded.rate):g} Hz, "
            f"{filesize.decimal(recorded.size)}; next: ",
            (f"efv2 replay {shlex.quote(str(out))}", "bold"),
        ),
        soft_wrap=True,
    )
