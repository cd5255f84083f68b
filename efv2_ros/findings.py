"""What a `doctor` command found: one line for each thing, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "missing", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is.
        verdict: `missing` only where something will not work without it.
        detail: What was found.
        fix: What to do about it; empty when nothing needs doing.
    """

    subject: str
    verdict: Verdict
    detail: str
    fix: str = ""
