"""The package built and installed by colcon, and the environment that sourcing it makes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(folder):
    """Build into `folder`; the install prefix and the environment after sourcing it."""
    colcon = shutil.which("colcon")
    if colcon is None:
        pytest.skip("colcon is not installed")
    subprocess.run(
        [
            colcon, "--log-base", folder / "log", "build", "--paths", ROOT,
            "--build-base", folder / "build", "--install-base", folder / "install",
        ],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    sourced = subprocess.run(
        ["sh", "-c", '. "$COLCON_CURRENT_PREFIX/local_setup.sh" && env -0'],
        env={**os.environ, "COLCON_CURRENT_PREFIX": str(folder / "install")},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    environment = dict(line.split("=", 1) for line in sourced.split("\0") if line)
    return folder / "install" / "efv2_ros", environment
