"""Files that `efv2 bench` writes: checked before the work, whole after it."""

import json

import pytest
from click.testing import CliRunner

from efv2_ros.cli.main import main

COMMAND = ["bench", "--quick", "--part", "postprocess", "--seconds", "0.02", "--untrained"]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [*COMMAND, *arguments])


def test_both_files(bench, tmp_path):
    (tmp_path / "b.json").write_text("before")
    result = bench("--json", "b.json", "--markdown", "b.md")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "b.md").read_text() == result.stdout
    assert set(json.loads((tmp_path / "b.json").read_text())["parts"]) == {"postprocess"}
    assert {each.name for each in tmp_path.iterdir()} >= {"b.json", "b.md"}
    assert not list(tmp_path.glob(".efv2*"))


def test_json_on_standard_output_follows_the_tables(bench):
    result = bench("--json", "-")
    assert '"parts"' in result.stdout
    assert json.loads(result.stdout[result.stdout.index("\n{") :])["parts"]


def test_a_benchmark_that_fails_leaves_the_files_of_the_last_one(bench, tmp_path, monkeypatch):
    def fails(*arguments):
        raise KeyboardInterrupt

    (tmp_path / "b.json").write_text("before")
    monkeypatch.setattr("efv2_ros.cli.bench.run", fails)
    result = bench("--json", "b.json")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert (tmp_path / "b.json").read_text() == "before"


@pytest.mark.parametrize("option", ["--json", "--markdown"])
def test_a_file_that_cannot_be_written_is_said_before_the_work(bench, monkeypatch, option):
    monkeypatch.setattr("efv2_ros.cli.bench.run", None)
    result = bench(option, "gone/b.json")
    assert (result.exit_code, "cannot write gone/b.json: there is no folder" in result.stderr) == (
        1, True,
    )  # fmt: skip
