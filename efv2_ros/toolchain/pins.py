"""What the toolchain's environment is made of: the pinned packages of each flavour."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Flavour = Literal["slim", "full"]
FLAVOURS: tuple[Flavour, ...] = ("slim", "full")
"""`slim` quantises, compiles and simulates; `full` has all that the vendor's packages ask for."""

REQUIREMENTS = Path(__file__).parent / "requirements"
"""Folder of the files of requirements."""

DISK_BYTES = {"slim": 2 << 30, "full": 16 << 30}
"""What an installation needs for a while, with its downloads."""


@dataclass(frozen=True)
class Pins:
    """The packages of an environment.

    Attributes:
        flavour: Which environment.
        file: The file of requirements, with a hash for each file that is installed.
        packages: Versions by name.
        sha256: Hash of all pins. It names the environment.
    """

    flavour: Flavour
    file: Path
    packages: dict[str, str]
    sha256: str

    @classmethod
    def load(cls, flavour: Flavour) -> Pins:
        """Read the pins of a flavour."""
        file = REQUIREMENTS / f"{flavour}.txt"
        lines = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
        packages = dict(line.split()[0].split("==") for line in lines)
        return cls(flavour, file, packages, hashlib.sha256("\n".join(lines).encode()).hexdigest())

    @property
    def folder_name(self) -> str:
        """Name of the environment's folder in the cache."""
        return f"toolchain-{self.flavour}-{self.sha256[:12]}"
