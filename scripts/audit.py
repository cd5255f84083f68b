"""Ask for known vulnerabilities of all pinned packages with pip-audit; `scripts/audit` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from typing import Any

from environment import CLONE, LOCK_FILE, read_sections, release_of

TOOLCHAIN = CLONE / "efv2_ros" / "toolchain" / "requirements"
CLEAN, VULNERABLE, UNKNOWN = 0, 1, 3


def main() -> None:
    """Audit all pins; arguments go to pip-audit."""
    audited: list[dict[str, Any]] = []
    for releases in without_repetition(pinned_releases()):
        result = pip_audit(releases, sys.argv[1:])
        try:
            audited += json.loads(result.stdout)["dependencies"]
        except (ValueError, KeyError, TypeError):
            reason = (result.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            print(f"scripts/audit: pip-audit cannot ask for advisories: {reason}", file=sys.stderr)
            sys.exit(UNKNOWN)
    text, status = summarise(audited)
    print(text)
    sys.exit(status)


def pinned_releases() -> set[str]:
    """Every `name==version` of the lock file and of the toolchain's requirements."""
    locked = {release_of(pin) for pins in read_sections(LOCK_FILE).values() for pin in pins}
    lines = [line for file in TOOLCHAIN.glob("*.txt") for line in file.read_text().splitlines()]
    toolchain = {line.split()[0] for line in lines if not line.startswith("#")}
    return locked | {release.lower().replace("_", "-") for release in toolchain}


def without_repetition(releases: Iterable[str]) -> list[list[str]]:
    """Divide releases into groups that have one of each package, which is all pip-audit takes."""
    groups: list[list[str]] = []
    counts: Counter[str] = Counter()
    for release in sorted(releases):
        name = release.partition("==")[0]
        if counts[name] == len(groups):
            groups.append([])
        groups[counts[name]].append(release)
        counts[name] += 1
    return groups


def pip_audit(
    releases: Iterable[str], arguments: Iterable[str]
) -> subprocess.CompletedProcess[str]:
    """Run pip-audit over releases; it installs and downloads none of them."""
    options = ["--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json"]
    with tempfile.NamedTemporaryFile("w", prefix="efv2-audit-", suffix=".txt") as file:
        file.write("".join(f"{release}\n" for release in releases))
        file.flush()
        command = [sys.executable, "-m", "pip_audit", *options, "-r", file.name, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def summarise(audited: list[dict[str, Any]]) -> tuple[str, int]:
    """Say what pip-audit found, a line for each advisory, and the exit status that it means."""
    skipped = [package for package in audited if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {advisory['id']}"
        f"{''.join(f', {alias}' for alias in advisory['aliases'])}; "
        f"mended in {', '.join(advisory['fix_versions']) or 'no version'}"
        for package in audited
        for advisory in package.get("vulns", [])
    ]
    if lines:
        lines.append(f"{len(lines)} known vulnerabilities in {len(audited)} pinned packages.")
        return "\n".join(lines), VULNERABLE
    if skipped:
        text = (
            f"Nothing is known of {len(skipped)} of {len(audited)} pinned packages: no advisories"
        )
        return f"{text}, as for {skipped[0]['name']}: {skipped[0]['skip_reason']}", UNKNOWN
    return f"No known vulnerabilities in {len(audited)} pinned packages.", CLEAN


if __name__ == "__main__":
    main()
