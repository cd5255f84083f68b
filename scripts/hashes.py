"""Write `requirements.hashes`: the SHA-256 of each file that pip may install for the pins.

`scripts/hashes` runs it, after a pin in `requirements.lock` has changed. It asks PyPI for the
files of every pin, and keeps the wheels for CPython 3.10 to 3.13 on x86-64 and 64-bit ARM Linux;
for a package without such a wheel, its source archive.

Only the standard library is used: an environment cannot be made before the hashes are there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from environment import HASHES_FILE, LOCK_FILE, EnvironmentFailure, read_sections, release_of

from efv2_ros.errors import Efv2Error
from efv2_ros.files import open_atomic

INDEX = "https://pypi.org/simple"
MEDIA_TYPE = "application/vnd.pypi.simple.v1+json"
HEADER = """\
# The files that pip may install for each pin of requirements.lock, and their SHA-256. Made by
# `scripts/hashes` from what PyPI says; a file with another hash is not installed.
"""
# Python's and the interface's tag of a wheel that CPython 3.10 to 3.13 runs.
PURE = re.compile(r"(\w+\.)*py3(\.\w+)*-none")
COMPILED = re.compile(r"cp31[0-3]-(cp31[0-3]|none)|cp3(\d|1[0-3])-abi3(\.\w+)*")
PLATFORM = re.compile(r"any|(.+\.)?(many)?linux\w*_(x86_64|aarch64)(\..+)?")


def main() -> None:
    """Write the file, or compare it with PyPI."""
    parser = argparse.ArgumentParser(
        prog="scripts/hashes",
        description="Write scripts/requirements.hashes: what PyPI has for each pin of "
        "scripts/requirements.lock.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    check: bool = parser.parse_args().check
    try:
        text = hashes_of(read_releases(LOCK_FILE))
        if not check:
            with open_atomic(HASHES_FILE) as file:
                file.write(text)
        elif text != HASHES_FILE.read_text(encoding="utf-8"):
            raise EnvironmentFailure(f"{HASHES_FILE} differs from what PyPI says")
    except (EnvironmentFailure, Efv2Error, OSError) as failure:
        sys.exit(f"scripts/hashes: {failure}")


def read_releases(lock_file: Path) -> list[str]:
    """Every `name==version` of a lock file, once, in order."""
    return sorted({release_of(pin) for pins in read_sections(lock_file).values() for pin in pins})


def hashes_of(releases: list[str]) -> str:
    """What the file of hashes says about these releases.

    Raises:
        EnvironmentFailure: PyPI does not answer, or has no file for a release.
    """
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(files_of, releases)
        parts = [f"\n[{release}]\n{files}" for release, files in zip(releases, found, strict=True)]
    return HEADER + "".join(parts)


def files_of(release: str) -> str:
    """A line for each file that may be installed: its SHA-256 and its name.

    Raises:
        EnvironmentFailure: PyPI does not answer, or has no such file.
    """
    name, _, version = release.partition("==")
    files = {file["filename"]: file["hashes"]["sha256"] for file in ask_index(name)["files"]}
    sources = {f"{spelt}-{version}.tar.gz" for spelt in (name, name.replace("-", "_"))}
    suitable = [file for file in files if is_wheel_of(release, file)] or sources & files.keys()
    if not suitable:
        raise EnvironmentFailure(f"{INDEX}/{name}/ has no file to install {release} from")
    return "".join(f"{files[file]}  {file}\n" for file in sorted(suitable))


def ask_index(name: str) -> Any:
    """What the package index says about a package.

    Raises:
        EnvironmentFailure: It does not answer.
    """
    request = urllib.request.Request(f"{INDEX}/{name}/", headers={"Accept": MEDIA_TYPE})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise EnvironmentFailure(f"{request.full_url}: {error}") from error


def is_wheel_of(release: str, file: str) -> bool:
    """Whether a file is a wheel of this release for the Pythons and machines that are served."""
    name, _, version = release.partition("==")
    if not file.endswith(".whl"):
        return False
    distribution, its_version, *_, python, abi, platform = file[: -len(".whl")].split("-")
    tags = f"{python}-{abi}"
    return (
        distribution.lower().replace("_", "-").replace(".", "-") == name.replace(".", "-")
        and its_version == version
        and bool(PURE.fullmatch(tags) or COMPILED.fullmatch(tags))
        and bool(PLATFORM.fullmatch(platform))
    )


if __name__ == "__main__":
    main()
