"""Make the files of `models/` for the network of a run: weights in half precision, and labels.

    python -m examples.cards.ship RUN models

in the clone's root. RUN is the folder that `efv2 train` made of the cards.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from efv2_ros.models.efficientformerv2.builder import load_state
from efv2_ros.models.modelfile import ModelError
from examples.cards.classes import CLASSES
from examples.cards.render import write_file

NAME = "efficientformerv2_s0_cards"


class ShipError(ValueError):
    """A run that is not of the cards; one sentence."""


def ship(run: Path, models: Path) -> list[Path]:
    """Write weights and labels.

    Args:
        run: The folder of a run of `efv2 train`.
        models: The folder to write into; `labels` in it has to be there.

    Returns:
        The files.

    Raises:
        ShipError: The run is not of the cards, or a weight is too large for half precision.
        ModelError: The run's weights cannot be read, or are of another network.
        OSError: A file cannot be written.
    """
    source = run / "model.safetensors"
    state = load_state(source, "s0")
    folders = [each.folder for each in CLASSES]
    if _class_names(source) != folders:
        raise ShipError(f"{run} is not a run of the {len(CLASSES)} cards")
    half = {name: _halved(name, tensor) for name, tensor in state.tensors.items()}
    weights = models / f"{NAME}.safetensors"
    # One entry: safetensors writes several in any order.
    write_file(weights, save(half, {"classes": json.dumps(folders)}))
    english = [[each.folder, each.name_cn, each.name] for each in CLASSES]
    chinese = [[each.folder, each.name, each.name_cn] for each in CLASSES]
    files = [weights]
    for name, labels in (("cards.json", english), ("cards_cn.json", chinese)):
        lines = ",\n".join(f" {json.dumps(each, ensure_ascii=False)}" for each in labels)
        files.append(models / "labels" / name)
        write_file(files[-1], f"[\n{lines}\n]\n".encode())
    return files


def _class_names(weights: Path) -> list[str]:
    try:
        with safe_open(weights, "numpy") as file:
            return list(json.loads((file.metadata() or {}).get("classes", "[]")))
    except (SafetensorError, ValueError) as error:
        raise ShipError(f"{weights} does not name its classes: {error}") from error


def _halved(name: str, tensor: NDArray[np.float32]) -> NDArray[np.float16]:
    half = tensor.astype(np.float16)
    if not np.isfinite(half).all():
        raise ShipError(f"{name} holds values beyond half precision's {np.finfo('f2').max:g}")
    return half


def main(arguments: list[str] | None = None) -> int:
    """Write the files as the command line says; return the exit status."""
    parser = argparse.ArgumentParser("python -m examples.cards.ship", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the training run")
    parser.add_argument("models", type=Path, metavar="MODELS", help="folder to write into")
    given = parser.parse_args(arguments)
    try:
        files = ship(given.run, given.models)
    except (ShipError, ModelError, OSError) as error:
        print(f"ship: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"{file}: {file.stat().st_size:,} bytes" for file in files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
