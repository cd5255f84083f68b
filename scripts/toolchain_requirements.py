"""Write the pins of the toolchain's environment, with the hash of each file that is installed.

Run it on x86-64 Linux with Python 3.10 in an environment that has uv and a recent pip:
`python3.10 -m venv ENV; ENV/bin/pip install -U uv pip; ENV/bin/python
scripts/toolchain_requirements.py`. It rewrites `efv2_ros/toolchain/requirements/*.txt` from the
`*.in` beside them: uv chooses the versions, pip the files, without downloading what is large.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "efv2_ros" / "toolchain" / "requirements"
HEADER = """\
# Every file of the toolchain's environment: CPython 3.10 on x86-64 Linux.
# Made from {source} by scripts/toolchain_requirements.py. Install with:
# pip install --require-hashes --no-deps -r {target}
"""


def main() -> None:
    """Write both files."""
    for source in sorted(FOLDER.glob("*.in")):
        target = source.with_suffix(".txt")
        target.write_text(pins(source))
        print(f"wrote {target}")


def pins(source: Path) -> str:
    """Pin what a file of requirements asks for."""
    # The slim list is complete: it leaves out what the vendor's packages ask for and do not need.
    no_deps = ["--no-deps"] if source.stem == "slim" else []
    with tempfile.TemporaryDirectory() as folder:
        versions, report = Path(folder, "versions.txt"), Path(folder, "report.json")
        run("uv", "pip", "compile", *no_deps, "--quiet", "--no-annotate", "--no-header",
            "--python", sys.executable, str(source), "-o", str(versions))  # fmt: skip
        run("pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps",
            "--report", str(report), "-r", str(versions))  # fmt: skip
        found = json.loads(report.read_text())["install"]
    lines = [HEADER.format(source=source.name, target=source.with_suffix(".txt").name)]
    for each in sorted(found, key=lambda each: each["metadata"]["name"].lower()):
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        sha256 = each["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={version} --hash=sha256:{sha256}\n")
    return "".join(lines)


def run(module: str, *arguments: str) -> None:
    """Run a module of this Python."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    main()
