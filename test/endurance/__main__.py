"""Run the endurance checks, and print a table of what came of them."""

from __future__ import annotations

import argparse
import math
import secrets
import signal
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import driver
import table
from rows import Length, Row

from efv2_ros.errors import Efv2Error
from efv2_ros.files import check_writable

INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    arguments = parser().parse_args()
    # A script's background job starts with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    length = Length(arguments.minutes / 60, seed)
    rows: list[Row] = []
    interrupted = False
    try:
        checks = driver.find(arguments.module or driver.MODULES, arguments.only)
        if arguments.list:
            for check in checks:
                print(f"{check.name:28} {check.purpose}")
            return 0
        for path in filter(None, (arguments.markdown, arguments.json)):
            check_writable(path)
        print(f"{len(checks)} checks, --minutes {arguments.minutes:g} --seed {seed}", flush=True)
        try:
            with closing(driver.run(checks, length, arguments.jobs)) as running:
                for row in running:
                    print(table.line(row), flush=True)
                    rows.append(row)
        except KeyboardInterrupt:
            interrupted = True
        table.show(rows)
        if arguments.markdown:
            table.save_markdown(rows, length, arguments.markdown)
        if arguments.json:
            table.save_json(rows, length, arguments.json)
    except Efv2Error as error:
        print(f"scripts/endurance: {error}", file=sys.stderr)
        return 2
    return INTERRUPTED if interrupted else int(any(row.failures for row in rows))


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="scripts/endurance", description=__doc__)
    result.add_argument(
        "--minutes", type=minutes, default=60.0,
        help="length of the whole run, all checks one after the other (default: 60)",
    )  # fmt: skip
    result.add_argument(
        "--seed", type=int, help="of all random numbers; the same gives the same run"
    )
    result.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="run this check; repeatable"
    )
    result.add_argument("--jobs", type=jobs, default=1, help="checks at once (default: 1)")
    result.add_argument("--list", action="store_true", help="list the checks and do nothing")
    result.add_argument("--markdown", metavar="FILE", type=Path, help="write the table there")
    result.add_argument("--json", metavar="FILE", type=Path, help="write all rows there")
    result.add_argument(
        "--module", metavar="NAME", action="append",
        help=f"module with checks; repeatable (default: {', '.join(driver.MODULES)})",
    )  # fmt: skip
    return result


def minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError
    return number


def jobs(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
