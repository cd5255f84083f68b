"""The command group `efv2`."""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import click

from efv2_ros import __version__
from efv2_ros.cli.bench import bench
from efv2_ros.cli.classify import classify
from efv2_ros.cli.console import INTERRUPTED, messages
from efv2_ros.cli.demo import demo
from efv2_ros.cli.doctor import doctor
from efv2_ros.cli.evaluate import evaluate
from efv2_ros.cli.models import models
from efv2_ros.cli.perf import perf
from efv2_ros.cli.play import play
from efv2_ros.cli.quantize import quantize
from efv2_ros.cli.record_demo import record_demo
from efv2_ros.cli.replay import replay
from efv2_ros.cli.report import report
from efv2_ros.cli.toolchain import toolchain
from efv2_ros.cli.train import train
from efv2_ros.cli.web import web
from efv2_ros.errors import Efv2Error
from efv2_ros.signals import ignore_signals, interruptible


class _Group(click.Group):
    """Ends every command tidily: errors as one sentence with exit status 1, signals with 130."""

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            # Paths may not be UTF-8, and a terminal's encoding may lack characters of a label.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            with interruptible():
                return super().invoke(ctx)
        except Efv2Error as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader of the output has closed it; click ends the process
            raise click.ClickException(_sentence(error)) from error
        except (KeyboardInterrupt, click.Abort):
            ignore_signals()
            messages.print("interrupted")
            ctx.exit(INTERRUPTED)


def _sentence(error: OSError) -> str:
    """Format the system's message, without the error number that `str` adds."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="efv2")
def main() -> None:
    """EfficientFormerV2 image classification for the RDK X5 and any other machine."""


for _command in (
    bench, classify, demo, doctor, evaluate, models, perf, play, quantize, record_demo, replay,
    report, toolchain, train, web,
):  # fmt: skip
    main.add_command(_command)
