#!/usr/bin/env python3
"""Write what documents the options: config/classify.yaml and the tables of docs/parameters*.md.

usage: scripts/env -- python scripts/option_documents.py [--check]

Run it after a change of the option tables. With --check nothing is written, and the exit status is
1 if a file is out of date. The Chinese descriptions are kept; a new option has its English one,
to be translated.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from efv2_ros.classify.option_table import Change, Option, Value
from efv2_ros.classify.options import MODEL_OPTIONS, VIEW_OPTIONS
from efv2_ros.node.options import NODE_OPTIONS, PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "classify.yaml"
ENGLISH = ROOT / "docs" / "parameters.md"
CHINESE = ROOT / "docs" / "parameters_cn.md"

TABLES = (MODEL_OPTIONS, VIEW_OPTIONS, NODE_OPTIONS)
"""The tables of a document, in their order."""

_WORDS = {
    ENGLISH: {
        Change.ALWAYS: "any time",
        Change.UNCONFIGURED: "unconfigured",
        Change.START: "start",
        "to": "to",
        "s": "s",
        "images": "images",
        "pixels": "pixels",
    },
    CHINESE: {
        Change.ALWAYS: "随时",
        Change.UNCONFIGURED: "unconfigured",
        Change.START: "启动时",
        "to": "到",
        "s": "秒",
        "images": "张",
        "pixels": "像素",
    },
}


_CODE = {name: f"`{name}`" for name in PARAMETERS}
"""Names of options as a description in a document has them."""


def text_of(value: Value) -> str:
    """A value as parameter files have it, without the quotes of a text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def configuration(present: str) -> str:
    """The parameter file with all defaults; its first lines, about the file, stay as they are."""
    lines = [line for line in present.partition("/**:")[0].splitlines() if line]
    lines += ["/**:", "  ros__parameters:"]
    for name, option in PARAMETERS.items():
        indent = "    # "
        lines += textwrap.wrap(
            option.description, 99, initial_indent=indent, subsequent_indent=indent
        )
        values = ", ".join(option.choices) or option.range
        default = json.dumps(option.default)
        lines.append(f"    {name}: {default}" + (f"  # {values}" if values else ""))
    return "\n".join(lines) + "\n"


def document(path: Path, present: str) -> str:
    """A document with its tables brought up to date; all else stays as it is."""
    meanings = {} if path == ENGLISH else _meanings(present)
    tables = iter(TABLES)

    def table(match: re.Match[str]) -> str:
        return match[1] + "".join(f"{row}\n" for row in _rows(path, next(tables), meanings))

    # The head of a table whose first column has parameters, its ruler, and its rows.
    head = r"^(\|[^|\n]+\|[^\n]*\n\|(?: --- \|)+\n)(?:\| `[a-z_0-9]+` \|[^\n]*\n)+"
    return re.sub(head, table, present, flags=re.MULTILINE)


def _rows(path: Path, options: Mapping[str, Option], meanings: Mapping[str, str]) -> Iterator[str]:
    words = _WORDS[path]
    for name, option in options.items():
        if option.kind is bool:
            values = "`true`, `false`"
        elif option.choices:
            values = ", ".join(f"`{choice}`" for choice in option.choices)
        else:
            values = " ".join(words.get(word, word) for word in option.range.split())
        default = text_of(option.default)
        cells = [
            f"`{name}`",
            f"`{default}`" if default else "",
            values,
            words[option.change],
            meanings.get(name) or option.template.format_map(_CODE),
        ]
        yield "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _meanings(present: str) -> dict[str, str]:
    """The last cell of each row, by the parameter in the first."""
    return dict(re.findall(r"^\| `([a-z_0-9]+)` \|.*\| ([^|]+) \|$", present, re.MULTILINE))


def main(arguments: list[str]) -> int:
    """Write or compare the files."""
    outdated = []
    for path in (CONFIG, ENGLISH, CHINESE):
        present = path.read_text(encoding="utf-8")
        wanted = configuration(present) if path == CONFIG else document(path, present)
        if wanted != present:
            outdated.append(str(path.relative_to(ROOT)))
            if "--check" not in arguments:
                path.write_text(wanted, encoding="utf-8")
    if outdated:
        found = "out of date" if "--check" in arguments else "written"
        print(f"{found}: {', '.join(outdated)}")
    return 1 if outdated and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
