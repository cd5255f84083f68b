"""The table of the shipped recipes: its data file, its staleness, and `efv2 perf --estimate`."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx")
from click.testing import CliRunner

from efv2_ros.cli.main import main
from efv2_ros.quantize import estimates
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.estimates import (
    Entry,
    markdown,
    read_estimates,
    recipe_digest,
    rows,
    shipped_recipes,
    suits,
    write_estimates,
)
from efv2_ros.quantize.recipe import Calibration, Recipe, read_recipe

ROOT = Path(__file__).parents[2]
FAST = Recipe("fast", "one", calibration=Calibration(percentile=0.9999))
ZOO = Recipe("zoo_s0", "another")


def entry(recipe=FAST, size="s0", milliseconds=1.5, **changes):
    found = Entry(
        size, recipe.name, recipe_digest(recipe, size), "O2", milliseconds, 650.0, 5_400_000,
        0.9971, 0.98, 0.95, 0.835, 0.986, 40, 20, "random, seed 0", "0" * 64, "0.2.0",
        {"dgdk": "1.0.0"},
    )  # fmt: skip
    return replace(found, **changes)


@pytest.fixture
def script():
    path = ROOT / "scripts" / "recipe_estimates.py"
    spec = importlib.util.spec_from_file_location("recipe_estimates", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_keeps_all_figures(tmp_path):
    path = tmp_path / "estimates.json"
    some = [entry(size="s1"), entry(), entry(ZOO, milliseconds=6.6)]
    write_estimates(some, path)
    assert read_estimates(path) == [some[1], some[2], some[0]]
    assert read_estimates(tmp_path / "none.json") == []


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"version": 2, "estimates": []}', '{"version": 1, "estimates": [{}]}', ""]
)
def test_a_wrong_file_is_refused(tmp_path, text):
    path = tmp_path / "estimates.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(QuantizeError, match=re.escape(str(path))):
        read_estimates(path)


def test_a_figure_must_be_a_number(tmp_path):
    path = tmp_path / "estimates.json"
    write_estimates([entry()], path)
    path.write_text(path.read_text().replace("650.0", '"fast"'), encoding="utf-8")
    with pytest.raises(QuantizeError, match="no number"):
        read_estimates(path)


def test_a_changed_recipe_makes_its_figures_stale():
    changed = replace(FAST, calibration=Calibration(percentile=0.999))
    described = replace(FAST, description="in other words")
    assert recipe_digest(described, "s0") == recipe_digest(FAST, "s0")
    (row,) = rows([entry()], [described], ["s0"])
    assert (row.is_stale, row.note) == (False, "")
    (row,) = rows([entry()], [changed], ["s0"])
    assert (row.is_stale, row.note) == (True, "the recipe was changed since")
    sized = replace(FAST, sizes={"s1": changed})
    assert recipe_digest(sized, "s0") == recipe_digest(FAST, "s0")
    assert recipe_digest(sized, "s1") != recipe_digest(FAST, "s1")


def test_rows_are_the_recipes_for_each_size_the_fastest_first():
    some = [entry(milliseconds=3.0), entry(ZOO, milliseconds=2.0), entry(size="s1")]
    other = Recipe("other")
    found = rows(some, [FAST, other, ZOO], ["s0", "s1"])
    assert [(row.size, row.recipe) for row in found] == [
        ("s0", "zoo_s0"), ("s0", "fast"), ("s0", "other"), ("s1", "fast"), ("s1", "other"),
    ]  # fmt: skip
    assert found[2].note == "not measured"
    assert suits("zoo_s1", "s1")
    assert not suits("zoo_s1", "s0")
    table = markdown(found, list("abcdefghi"), {"not measured": "?"})
    lines = table.splitlines()
    assert lines[0] == "| a | b | c | d | e | f | g | h | i |"
    assert lines[2].startswith("| s0 | zoo_s0 | 2.00 | 650 | 5.4 | 0.9971 | 0.9800 | 95.0 % [84,")
    assert lines[4] == "| s0 | other |  |  |  |  |  |  | ? |"


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """Figures for two shipped recipes, one of them changed since."""
    recipes = {each.name: each for each in shipped_recipes()}
    stale = entry(recipes["plain"], milliseconds=3.2, recipe_digest="0" * 16)
    path = tmp_path / "estimates.json"
    write_estimates([entry(recipes["zoo_s0"], milliseconds=6.57), stale], path)
    monkeypatch.setattr(estimates, "share_path", lambda *parts: path)
    return path


def test_the_command_shows_the_zoo_beside_the_estimates(shipped):
    shown = CliRunner().invoke(main, ["perf", "--estimate"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert re.search(r"s0 +│ published +│ +5\.79 │ +198", shown.stdout)
    assert re.search(r"s0 +│ zoo_s0 +│ +6\.57 │ +650 │ +5\.4 │ 0\.9971 ", shown.stdout)
    assert re.search(r"s0 +│ plain\* +│ +3\.20", shown.stdout)
    assert "the compiler's estimates, not a board's" in shown.stdout
    assert "random, seed 0; 40 images; compiled at O2" in shown.stdout
    assert "* s0 plain: the recipe was changed since" in shown.stderr
    assert "* s1 plain: not measured" in shown.stderr


def test_the_command_as_json(shipped):
    shown = CliRunner().invoke(main, ["perf", "--estimate", "--json"])
    document = json.loads(shown.stdout)
    assert document["estimated_by"] == "the compiler"
    size = document["sizes"]["s0"]
    assert size["published"]["latency_1_thread_ms"] == 5.79
    by_name = {each["recipe"]: each for each in size["estimates"]}
    assert by_name["zoo_s0"]["figures"]["milliseconds"] == 6.57
    assert by_name["plain"]["note"] == "the recipe was changed since"


def test_the_script_writes_the_tables(script, monkeypatch, tmp_path, capsys):
    document = tmp_path / "quantization.md"
    text = f"before\n{script.BEGIN}old\n{script.END}after\n"
    document.write_text(text, encoding="utf-8")
    other = tmp_path / "other.md"
    other.write_text("no table\n", encoding="utf-8")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "DATA", tmp_path / "estimates.json")
    headings = script.DOCUMENTS[ROOT / "docs" / "quantization.md"]
    monkeypatch.setattr(script, "DOCUMENTS", {document: headings, other: headings})
    assert script.write_tables(check=True) == 1
    assert document.read_text(encoding="utf-8") == text
    assert script.write_tables(check=False) == 0
    written = document.read_text(encoding="utf-8")
    assert written.startswith(f"before\n{script.BEGIN}| size | recipe |")
    assert written.endswith(f"{script.END}after\n")
    assert other.read_text(encoding="utf-8") == "no table\n"
    assert "s0 plain: not measured" in capsys.readouterr().out


def test_shipped_recipes_can_be_read():
    for recipe in shipped_recipes():
        path = ROOT / "models" / "recipes" / f"{recipe.name}.yaml"
        assert read_recipe(path) == recipe
    assert read_estimates() is not None
