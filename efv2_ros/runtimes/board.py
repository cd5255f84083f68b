"""Read the state of an RDK X5 from its file system: BPU load, CPU governor, temperature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

_BPU = "sys/devices/system/bpu/bpu0"
_GOVERNORS = "sys/devices/system/cpu/cpufreq"

PERFORMANCE_MODE = f"echo performance | sudo tee /{_GOVERNORS}/policy*/scaling_governor"
"""Command that sets the CPU to its full speed, as for published figures, until a reboot."""


@dataclass(frozen=True)
class BoardState:
    """State of the board. What cannot be read is None.

    Attributes:
        bpu_load: Utilisation of the BPU in percent.
        governor: Governor of the CPU's frequency; several names if the clusters differ.
        temperature: Temperature of the SoC's hottest sensor in degrees Celsius.
    """

    bpu_load: int | None
    governor: str | None
    temperature: float | None


def has_bpu() -> bool:
    """Whether this machine has a BPU."""
    return (ROOT / _BPU).exists()


def name() -> str:
    """Read the machine's name from its device tree; empty if it has none."""
    return (_read(ROOT / "proc/device-tree/model") or "").rstrip("\0\n")


def state() -> BoardState | None:
    """Read the present state of the board; None on a machine without a BPU."""
    if not has_bpu():
        return None
    policies = (ROOT / _GOVERNORS).glob("policy*/scaling_governor")
    governors = {text.strip() for text in map(_read, policies) if text}
    # sysfs gives temperatures in thousandths of a degree.
    zones = map(_number, (ROOT / "sys/class/thermal").glob("thermal_zone*/temp"))
    temperatures = [each / 1000 for each in zones if each is not None]
    return BoardState(
        bpu_load=_number(ROOT / _BPU / "ratio"),
        governor=", ".join(sorted(governors)) or None,
        temperature=max(temperatures, default=None),
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_read(path) or "")
    except ValueError:
        return None
