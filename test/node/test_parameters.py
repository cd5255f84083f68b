"""One table of options; the parameters, the configuration and the documents agree with it."""

import importlib.util
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")

from rcl_interfaces.msg import ParameterType

from efv2_ros.classify.option_table import Change
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.node.options import PARAMETERS, Settings
from efv2_ros.node.parameters import descriptor_of
from efv2_ros.vision.nv12 import Roi

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "classify.yaml"
READMES = ("README.md", "README_cn.md")
DOCUMENTS = ("docs/parameters.md", "docs/parameters_cn.md")
DEFAULTS = {name: option.default for name, option in PARAMETERS.items()}
CHANGES = {
    Change.ALWAYS: ("any time", "随时"),
    Change.UNCONFIGURED: ("unconfigured",),
    Change.START: ("start", "启动时"),
}


@pytest.fixture(scope="module")
def documents():
    """scripts/option_documents.py as a module."""
    file = ROOT / "scripts" / "option_documents.py"
    spec = importlib.util.spec_from_file_location("option_documents", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(document, name):
    """The cells of each row of a parameter, without its name."""
    found = re.findall(rf"^\| `{name}` \|(.*)\|$", (ROOT / document).read_text(), re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in found]


def shown(value):
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else ""


def test_defaults_satisfy_their_own_constraints():
    assert Settings.of({}) == Settings()
    assert Settings().values == DEFAULTS


def test_configuration_lists_every_parameter_with_its_default_and_description(documents):
    text = CONFIG.read_text()
    assert text == documents.configuration(text)
    assert text == documents.configuration("\n".join(text.splitlines()[:2]))
    joined = " ".join(line.strip().removeprefix("# ") for line in text.splitlines())
    for name, option in PARAMETERS.items():
        assert f"{option.description} {name}: {json.dumps(option.default)}" in joined
    assert max(map(len, text.splitlines())) <= 99


def test_configuration_has_values_of_the_right_types():
    values = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    assert {name: (type(value), value) for name, value in values.items()} == {
        name: (type(default), default) for name, default in DEFAULTS.items()
    }


@pytest.mark.parametrize("document", [*READMES, *DOCUMENTS])
def test_documents_list_every_parameter_with_its_default(document):
    if document in READMES and not rows_of(document, "model_size"):
        return  # it leaves the table to the documents
    for name, default in DEFAULTS.items():
        rows = rows_of(document, name)
        assert len(rows) == 1, f"{document} has {len(rows)} rows for {name}"
        assert rows[0][0] == shown(default), (document, name)


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("name", PARAMETERS)
def test_documents_say_which_values_there_are_and_when_they_change(document, name):
    option = PARAMETERS[name]
    _, values, change, meaning = rows_of(document, name)[0]
    assert change in CHANGES[option.change]
    assert all(f"`{choice}`" in values for choice in option.choices)
    assert re.findall(r"-?[\d.]+", values if option.limits else "") == (
        [re.sub(r"\.0$", "", str(limit)) for limit in option.limits] if option.limits else []
    )
    assert len(meaning) > 5


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_are_what_the_table_makes_of_them(documents, document):
    path = ROOT / document
    text = path.read_text()
    assert text == documents.document(path, text)
    stale = text.replace("| `5` |", "| `6` |").replace("1 to 32", "2 to 32")
    stale = re.sub(r"^\| `slots` .*\n", "", stale, flags=re.MULTILINE)
    mended = documents.document(path, stale)
    assert stale != mended
    if document.endswith("_cn.md"):  # translations are kept; a new option waits for its own
        start = mended.index("| `slots` |")
        mended = mended[:start] + text[start:].split("\n")[0] + mended[mended.index("\n", start) :]
    assert mended == text


@pytest.mark.parametrize("name", PARAMETERS)
def test_descriptors_tell_what_the_table_has(name):
    option = PARAMETERS[name]
    descriptor = descriptor_of(option)
    assert descriptor.description == option.description
    assert descriptor.read_only is (option.change is Change.START)
    assert option.change.value in descriptor.additional_constraints
    assert all(choice in descriptor.additional_constraints for choice in option.choices)
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    assert [(each.from_value, each.to_value) for each in ranges] == (
        [option.limits] if option.limits else []
    )
    assert descriptor.type in (ParameterType.PARAMETER_NOT_SET,)  # rclpy takes the default's


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
    request = Settings.of({name: other}).model
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
    options = Settings.of({"roi": "1,2,3,4", **values}).view
    assert options == ViewOptions(roi=Roi(1, 2, 3, 4), **values)
