"""Render the 50 cards of `photos/cards`, which the demo shows: every second class, once each.

    python -m examples.cards.stream photos/cards

in the clone's root. They are of the test split, with a seed that no other set uses.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.cards.classes import CLASSES
from examples.cards.render import compose, write_file

SEED = 1
DIFFICULTY = 0.5
SIDE = 256
STEP = 2
"""Of how many classes one is shown."""


def write_stream(folder: Path) -> list[Path]:
    """Render the cards into a folder, each into a file of its class's name.

    Args:
        folder: The folder; made if it does not exist.

    Returns:
        The files, in the order of the classes.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for class_index in range(0, len(CLASSES), STEP):
        scene = compose(class_index, SEED, "test", (SIDE, SIDE), DIFFICULTY)
        files.append(folder / f"{CLASSES[class_index].folder}.jpg")
        write_file(files[-1], scene.data)
    return files


def main(arguments: list[str] | None = None) -> int:
    """Render the cards as the command line says; return the exit status."""
    parser = argparse.ArgumentParser("python -m examples.cards.stream", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to render into")
    given = parser.parse_args(arguments)
    try:
        files = write_stream(given.out)
    except OSError as error:
        print(f"stream: {error}", file=sys.stderr)
        return 2
    print(f"{given.out}: {len(files)} cards")
    return 0


if __name__ == "__main__":
    sys.exit(main())
