"""Write a bill of materials of an environment of scripts/env; `scripts/sbom` runs it.

cyclonedx-py lists the Python packages that are installed, with their licences. This adds the
package itself, the hashes of the files that pip may have installed, and what is not from PyPI:
the generated interfaces, the network and the data that the package ships. Homepages and the like
are left out: they tell nothing of what is installed, and to validate them takes minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from environment import CLONE, HASHES_FILE, interface_packages, read_sections

from efv2_ros.errors import Efv2Error
from efv2_ros.files import open_atomic

Json = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Something that the package ships and that is not Python.

    Attributes:
        name: Its name.
        kind: CycloneDX's name of its kind.
        licence: SPDX's identifier of its licence.
        version: Its version; empty for what has none.
        files: The files it is in, relative to the clone.
    """

    name: str
    kind: str
    licence: str
    version: str
    files: tuple[str, ...]


CARDS_NETWORK = "models/efficientformerv2_s0_cards.safetensors"
CLDR_NAMES = (
    "examples/cards/classes.json",
    "models/labels/cards.json",
    "models/labels/cards_cn.json",
)
EMOJI = ("docs/cards.pdf", "examples/cards/emoji.png")
IMAGENET_NAMES = "models/labels/imagenet1k.json"
PHOTOS = ("photos/cat.jpg", "photos/coffee.jpg", "photos/rocket.jpg")
PARTS = (
    Part("network-cards", "machine-learning-model", "Apache-2.0", "", (CARDS_NETWORK,)),
    Part("imagenet-names", "data", "MIT", "0.2.1", (IMAGENET_NAMES,)),
    Part("unicode-cldr", "data", "Unicode-DFS-2016", "41", CLDR_NAMES),
    Part("noto-color-emoji", "data", "OFL-1.1", "2.042", EMOJI),
    Part("scikit-image-photos", "data", "CC0-1.0", "", PHOTOS),
)


def main() -> None:
    """Write the bill to a file, or to the standard output."""
    parser = argparse.ArgumentParser(prog="scripts/sbom")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE")
    parser.add_argument("prefix", type=Path)
    options = parser.parse_args()
    text = bill_of_materials(options.prefix)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"scripts/sbom: this is no valid CycloneDX 1.6: {error}")
    if options.output is None:
        sys.stdout.write(text)
        return
    try:
        with open_atomic(options.output) as file:
            file.write(text)
    except Efv2Error as failure:
        sys.exit(f"scripts/sbom: {failure}")


def bill_of_materials(prefix: Path) -> str:
    """The bill of an environment, as CycloneDX in JSON."""
    bill = installed_packages(prefix)
    files = read_sections(HASHES_FILE)
    for component in bill["components"]:
        component["externalReferences"] = distributions_of(component, files)
    interfaces = [package_of(folder, "library") for folder in interface_packages()]
    drop_repeated(bill, {each["name"] for each in interfaces})
    bill["components"] += [*interfaces, *map(component_of, PARTS)]
    package = bill["metadata"]["component"] = package_of(CLONE, "application")
    refs = sorted(component["bom-ref"] for component in bill["components"])
    bill["dependencies"].append({"ref": package["bom-ref"], "dependsOn": refs})
    return json.dumps(bill, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def installed_packages(prefix: Path) -> Json:
    """What cyclonedx-py finds in an environment, without times and random numbers."""
    options = ["--output-reproducible", "--no-validate"]  # the whole bill is validated in the end
    command = [sys.executable, "-m", "cyclonedx_py", "environment", *options]
    command.append(str(prefix / "bin" / "python"))
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(f"scripts/sbom: cyclonedx-py failed:\n{found.stderr}")
    bill: Json = json.loads(found.stdout)
    return bill


def distributions_of(component: Json, files: dict[str, list[str]]) -> list[Json]:
    """Where a pinned package is from, with the hashes of the files that pip may have installed."""
    name = python_name(component)
    lines = files.get(f"{name}=={component['version']}")
    if not lines:
        return []
    hashes = [sha256(line.split()[0]) for line in lines]
    return [{"type": "distribution", "url": f"https://pypi.org/simple/{name}/", "hashes": hashes}]


def drop_repeated(bill: Json, generated: set[str]) -> None:
    """Drop what is listed twice: ROS's wheels hold their packages' own descriptions too.

    Args:
        bill: The bill; it is changed.
        generated: The names of the interface packages, which PyPI does not have.
    """
    names = {python_name(component) for component in bill["components"]}
    dropped = {
        component["bom-ref"]
        for component in bill["components"]
        if f"ros-{python_name(component)}" in names or component["name"] in generated
    }
    bill["components"] = [each for each in bill["components"] if each["bom-ref"] not in dropped]
    bill["dependencies"] = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", []) if ref not in dropped]}
        for each in bill["dependencies"]
        if each["ref"] not in dropped
    ]


def python_name(component: Json) -> str:
    """The name of a Python package as pins have it."""
    name: str = component["name"]
    return name.lower().replace("_", "-")


def package_of(folder: Path, kind: str) -> Json:
    """A ROS package as a component, as its manifest describes it."""
    manifest = ElementTree.parse(folder / "package.xml").getroot()
    text = {
        each: " ".join((manifest.findtext(each) or "").split())
        for each in ("name", "version", "description", "license")
    }
    return {
        "bom-ref": f"{text['name']}=={text['version']}",
        "type": kind,
        "name": text["name"],
        "version": text["version"],
        "description": text["description"],
        "licenses": [{"license": {"id": text["license"]}}],
        "purl": f"pkg:generic/{text['name']}@{text['version']}",
    }


def component_of(part: Part) -> Json:
    """A part of the package as a component that has its files as components."""
    files = [
        {"bom-ref": file, "type": "file", "name": file, "hashes": [sha256(digest(CLONE / file))]}
        for file in part.files
    ]
    return {
        "bom-ref": part.name,
        "type": part.kind,
        "name": part.name,
        **({"version": part.version} if part.version else {}),
        "licenses": [{"license": {"id": part.licence}}],
        "components": files,
    }


def sha256(digest: str) -> Json:
    """A hash as CycloneDX writes it."""
    return {"alg": "SHA-256", "content": digest}


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
