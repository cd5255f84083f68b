"""Fuzz one target: `python test/endurance/fuzz NAME [libFuzzer's arguments]`."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

# libFuzzer prefers inputs that take other ways through these; the decoders are no Python.
with atheris.instrument_imports(include=["efv2_ros", "yaml"], enable_loader_override=False):
    from targets import TARGETS


def look_into_json() -> None:
    """Read JSON with the Python code of `json`, of which the fuzzer sees which way it goes."""
    decoder, scanner = json.decoder, json.scanner
    for function in (
        decoder.JSONObject, decoder.JSONArray, decoder.py_scanstring, scanner.py_make_scanner,
    ):  # fmt: skip
        atheris.instrument_func(function)
    decoder.scanstring, scanner.make_scanner = decoder.py_scanstring, scanner.py_make_scanner
    json._default_decoder = json.JSONDecoder()


def main() -> None:
    name, *arguments = sys.argv[1:]
    target = TARGETS[name]
    logging.disable()
    look_into_json()

    def once(data: bytes) -> None:
        with suppress(target.error):
            target.once(data)

    atheris.Setup([sys.argv[0], *arguments], once)
    atheris.Fuzz()


main()
