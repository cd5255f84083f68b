"""`efv2`, the command line: one module a command."""

from __future__ import annotations

from typing import Any

import click

from efv2_ros import __version__
from efv2_ros.cli.bench import bench
from efv2_ros.cli.classify import classify
from efv2_ros.cli.demo import demo
from efv2_ros.cli.doctor import doctor
from efv2_ros.cli.evaluate import evaluate
from efv2_ros.cli.models import models
from efv2_ros.cli.perf import perf
from efv2_ros.cli.play import play
from efv2_ros.cli.record_demo import record_demo
from efv2_ros.cli.replay import replay
from efv2_ros.cli.report import report
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


for _command in (
    bench, classify, demo, doctor, evaluate, models, perf, play, record_demo, replay, report,
):  # fmt: skip
    main.add_command(_command)
