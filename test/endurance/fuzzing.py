"""Coverage-guided fuzzing of what reads other programs' bytes, with atheris (libFuzzer)."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import Check, Length, Row

FUZZ = Path(__file__).with_name("fuzz")
CORPUS = Path(__file__).with_name("corpus")

TARGETS = {
    "cdr": "serialized image messages",
    "jpeg": "the segments of JPEG files",
    "png": "the chunks of PNG files",
    "compressed": "JPEG and PNG files, to their pixels",
    "catalog": "catalogs of models",
    "labels": "files of class names",
    "lock": "lock files of models",
    "bag": "descriptions of bags",
    "run": "runs of replayed bags",
}
"""The targets of `fuzz/targets.py`, and what each reads."""

MAX_BYTES = 1024
SLOW_S = 25
"""An input that takes so long hangs, also where atheris makes Python slow."""
MOST_MB = 1024

SHOWN = 3000
"""Characters of the fuzzer's output that are shown with a finding."""


def fuzzing(target: str) -> Check:
    """A check that fuzzes a target for a minute."""

    def check(length: Length) -> Row:
        row = Row(f"fuzzing {TARGETS[target]}", "inputs")
        if importlib.util.find_spec("atheris") is None:
            row.figures["skipped"] = "atheris is not installed"
            return row
        with tempfile.TemporaryDirectory() as folder:
            found, findings = Path(folder, "found"), Path(folder, "findings")
            for each in (found, findings):
                each.mkdir()
            seed = length.random(target).randrange(1, 1 << 31)
            seconds = round(length.seconds(60, least=2))
            command = [
                sys.executable, str(FUZZ), target, f"-seed={seed}", f"-max_total_time={seconds}",
                f"-max_len={MAX_BYTES}", f"-timeout={SLOW_S}", f"-rss_limit_mb={MOST_MB}",
                f"-dict={FUZZ / 'tokens.dict'}", f"-artifact_prefix={findings}/",
                "-print_final_stats=1", str(found), str(CORPUS / target),
            ]  # fmt: skip
            done = subprocess.run(
                command, env={**os.environ, "TMPDIR": folder}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            output = done.stdout.decode(errors="replace")
            row.count = number(r"stat::number_of_executed_units: (\d+)", output)
            row.figures = figures(output)
            inputs = [(path.name, path.read_bytes()) for path in sorted(findings.iterdir())]
        for name, content in inputs:
            encoded = base64.b64encode(content).decode()
            row.failures.append(
                f"{name}; to repeat it: base64 -d <<< {encoded} > input && scripts/env -- "
                f"python test/endurance/fuzz {target} input\n{output[-SHOWN:]}"
            )
        if done.returncode and not inputs:
            row.failures.append(f"the fuzzer ended with {done.returncode}\n{output[-SHOWN:]}")
        return row

    check.__name__ = f"fuzz_{target}"
    check.__doc__ = f"Inputs that the fuzzer makes of {TARGETS[target]} raise documented errors."
    return check


def figures(output: str) -> dict[str, str]:
    """What libFuzzer says of the code that its inputs reached."""
    peak_mb = number(r"stat::peak_rss_mb: +(\d+)", output)
    return {
        "edges reached": str(number(r"cov: (\d+)", output)),
        "features": str(number(r"ft: (\d+)", output)),
        "inputs kept": str(number(r"corp: (\d+)/", output)),
        "peak memory": f"{peak_mb} MB",
    }


def number(pattern: str, output: str) -> int:
    """The last number that matches; 0 without one."""
    return int((re.findall(pattern, output) or [0])[-1])


CHECKS: tuple[Check, ...] = tuple(map(fuzzing, TARGETS))
