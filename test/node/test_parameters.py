"""One table of parameters; the configuration, the launch file and the READMEs agree with it."""

import json
import re
import textwrap
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")

from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.node.parameters import PARAMETERS, Settings
from efv2_ros.vision.nv12 import Roi

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "classify.yaml"
READMES = ("README.md", "README_cn.md")
DEFAULTS = {each.name: each.default for each in fields(Settings)}


def commented_yaml():
    """config/classify.yaml as the table says it should be."""
    lines = CONFIG.read_text().splitlines()[:2]
    assert all(line.startswith("# ") for line in lines), "two lines say what the file is for"
    lines += ["/**:", "  ros__parameters:"]
    for name, constraint in PARAMETERS.items():
        lines += textwrap.wrap(
            constraint.description, 99, initial_indent="    # ", subsequent_indent="    # "
        )
        line = f"    {name}: {json.dumps(DEFAULTS[name])}"
        if constraint.choices:
            line += f"  # {', '.join(constraint.choices)}"
        elif constraint.low is not None:
            line += f"  # {constraint.low:g} to {constraint.high:g}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def test_defaults_satisfy_their_own_constraints():
    assert {name: getattr(Settings(), name) for name in PARAMETERS} == DEFAULTS


def test_configuration_lists_every_parameter_with_its_default_and_description():
    assert CONFIG.read_text() == commented_yaml()


def test_configuration_has_values_of_the_right_types():
    values = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    assert {name: (type(value), value) for name, value in values.items()} == {
        name: (type(default), default) for name, default in DEFAULTS.items()
    }


@pytest.mark.parametrize("readme", READMES)
def test_readme_lists_every_parameter_with_its_default(readme):
    text = (ROOT / readme).read_text()
    for name, default in DEFAULTS.items():
        rows = re.findall(rf"^\| `{name}` \|(.*)$", text, re.MULTILINE)
        assert len(rows) == 1, f"{readme} has {len(rows)} rows for {name}"
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert rows[0].split("|")[0].strip() == (f"`{shown}`" if shown else ""), (readme, name)


@pytest.mark.parametrize("name", [each.name for each in fields(ModelRequest)])
def test_every_setting_of_the_model_reaches_it(name):
    texts = {"mean": "1,2,3", "scale": "1,2,3", "nv12_range": "limited", "runtime": "onnx"}
    default = DEFAULTS[name]
    if isinstance(default, bool):
        other = not default
    elif isinstance(default, str):
        other = texts.get(name, "other")
    else:
        other = default + 1
    request = Settings(**{name: other}).model_request()
    expected = (1.0, 2.0, 3.0) if other == "1,2,3" else other
    assert getattr(request, name) == expected
    assert replace(request, **{name: getattr(ModelRequest(), name)}) == ModelRequest()


def test_every_setting_of_the_view_reaches_it():
    values = {
        "fit": "stretch",
        "input_range": "full",
        "antialias": False,
        "max_pixels": 1234,
        "top_k": 2,
        "score_threshold": 0.5,
    }
    options = Settings(roi="1,2,3,4", **values).view_options()
    assert options == ViewOptions(roi=Roi(1, 2, 3, 4), **values)
