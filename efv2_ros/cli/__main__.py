"""Entry point of `python -m efv2_ros.cli`, which is `efv2`."""

from efv2_ros.cli.main import main

main(prog_name="efv2")
