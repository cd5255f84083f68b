"""Install the programs that `scripts/sbom` and `scripts/audit` run, and print their Python.

They have an environment of their own: their packages do not fit those of `scripts/env`.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from environment import (
    COMPLETE,
    DISTROS,
    LOCK_FILE,
    Builder,
    EnvironmentFailure,
    Flavour,
    cache_folder,
    exclusive,
    python_version,
    read_sections,
    say,
    with_hashes,
)


def main() -> None:
    """Print the Python that has the programs."""
    try:
        print(audit_python())
    except EnvironmentFailure as failure:
        sys.exit(f"scripts/audit_tools.py: {failure}")


def audit_python() -> Path:
    """Return the Python that has cyclonedx-py and pip-audit, after installing them if need be.

    Raises:
        EnvironmentFailure: They could not be installed.
    """
    pins = read_sections(LOCK_FILE)["audit"]
    inputs = [sys.version, sys.base_prefix, with_hashes(pins)]
    key = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:10]
    cache = cache_folder()
    prefix = cache / f"audit-py{python_version()}-{key}"
    complete = prefix / COMPLETE
    cache.mkdir(parents=True, exist_ok=True)
    with exclusive(prefix.with_name(f"{prefix.name}.lock")):
        if not complete.exists():
            say("Installing cyclonedx-py and pip-audit, once ...\n")
            shutil.rmtree(prefix, ignore_errors=True)
            prefix.mkdir()
            builder = Builder(prefix, Flavour(DISTROS[0]))
            builder.make_venv()
            builder.install(pins)
            complete.touch()
    return prefix / "bin" / "python"


if __name__ == "__main__":
    main()
