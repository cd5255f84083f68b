"""Files that are not what a command takes: one sentence, exit status 1, and nothing is changed."""

import itertools
import json
import os
import random
import re

import cv2
import pytest
from bag_maker import make, picture
from click.testing import CliRunner
from pictures import write_video
from tiny_models import projection

from efv2_ros.cli.main import main

BAD_NAME = os.fsdecode(b"bad\xff.json")


def noise(size):
    return random.Random(size).randbytes(size)


WRONG = {
    "empty": b"",
    "noise": noise(5000),
    **{f"noise.{suffix}": noise(3000) for suffix in (
        "json", "yaml", "txt", "jsonl", "csv", "onnx", "bin", "db3", "mcap", "mcap.zstd", "jpg",
        "png", "mp4", "safetensors",
    )},
    **{f"empty.{suffix}": b"" for suffix in ("json", "yaml", "onnx", "db3", "mcap", "png", "avi")},
    "deep.json": b"[" * 100_000,
    "list.json": b"[1, 2]",
    "number.yaml": b"7",
    "nul.yaml": b"a: \0",
    "digits.jsonl": b'{"run": ' + b"9" * 5000 + b"}",
    BAD_NAME: b"x",
}  # fmt: skip
METADATA = {
    "cut": "rosbag2_bagfile_information: [",
    "numbers": "rosbag2_bagfile_information: {relative_file_paths: [7, ../x.db3, null]}",
    "deep": "[" * 3000,
    "none": None,
}
WHERE = [*WRONG, *METADATA, "folder", "loop", "gone", "gone/x", "empty/x", "x" * 300]
"""Names of files, bags and folders that no command can use as its input."""

COMMANDS = {
    "classify photo": ["classify", "{}", "--model", "m.onnx"],
    "classify labels": ["classify", "photo.png", "--model", "m.onnx", "--labels", "{}"],
    "replay bag": ["replay", "{}", "--model", "m.onnx"],
    "replay golden": ["replay", "bag", "--model", "m.onnx", "--golden", "{}"],
    "report run": ["report", "{}", "-o", "o.html"],
    "report bag": ["report", "run.jsonl", "--bag", "{}", "-o", "o.html"],
    "record-demo": ["record-demo", "new", "{}"],
    "evaluate folder": ["evaluate", "{}", "--model", "m.onnx"],
    "evaluate truth": ["evaluate", "set", "--model", "m.onnx", "--truth", "{}"],
    "demo": ["demo", "{}"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name, contents in WRONG.items():
        (folder / name).write_bytes(contents)
    for name, text in METADATA.items():
        (folder / name).mkdir()
        if text is not None:
            (folder / name / "metadata.yaml").write_text(text)
        (folder / name / "a.db3").write_bytes(noise(100))
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    projection(folder / "m.onnx")
    make(folder / "bag", 2)
    cv2.imwrite(str(folder / "photo.png"), picture(0))
    (folder / "set/1").mkdir(parents=True)
    cv2.imwrite(str(folder / "set/1/1.png"), picture(1))
    before = os.getcwd()  # noqa: PTH109
    os.chdir(folder)
    done = CliRunner().invoke(main, ["replay", "bag", "--model", "m.onnx", "--jsonl", "run.jsonl"])
    os.chdir(before)
    assert done.exit_code == 0, done.output
    return folder


def contents(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_input_is_one_sentence(folder, monkeypatch, command):
    if command == "demo":
        pytest.importorskip("rclpy")
    monkeypatch.chdir(folder)
    before = contents(folder)
    for name in WHERE:
        arguments = [each.format(name) for each in COMMANDS[command]]
        done = CliRunner().invoke(main, arguments)
        assert isinstance(done.exception, SystemExit), (arguments, done.exc_info)
        assert done.exit_code in (1, 2), (arguments, done.output)
        shown = name.encode(errors="backslashreplace").decode()
        notices = [each for each in done.stderr.splitlines() if not each.startswith("left out: ")]
        if done.exit_code == 1 and "YAML" not in done.stderr:  # which points at the place
            (sentence,) = notices
            assert sentence.startswith(("Error: ", f"{shown}: "))
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("option", "name"),
    [
        *itertools.product(
            ["--jsonl", "--junit", "--out"], ["folder", "loop", "empty/x", "x" * 300]
        ),
        ("--jsonl", "gone/x"),
        ("--junit", "gone/x"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_sentence_before_the_work(
    folder, monkeypatch, option, name
):
    monkeypatch.chdir(folder)
    before = contents(folder)
    more = ["--golden", "run.jsonl"] if option == "--junit" else []
    done = CliRunner().invoke(main, ["replay", "bag", "--model", "m.onnx", *more, option, name])
    assert isinstance(done.exception, SystemExit), done.exc_info
    assert done.exit_code in (1, 2)
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert re.search("cannot write|is a directory|File name too long", done.stderr)
    assert "images of" not in done.output or option == "--out"
    assert contents(folder) == before


def test_a_video_whose_name_is_no_utf_8(tmp_path, monkeypatch):
    """OpenCV would end the process."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "video.avi").rename(tmp_path / os.fsdecode(b"\xff.avi"))
    done = CliRunner().invoke(main, ["record-demo", "bag", os.fsdecode(b"\xff.avi")])
    assert (done.exit_code, "is not UTF-8" in done.stderr) == (1, True)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_with_a_value_replaced_is_read_or_refused(folder, monkeypatch, seed):
    monkeypatch.chdir(folder)
    chance = random.Random(seed)
    values = [None, 1e308, -1, 10**30, "x", [], {}, "\ud800", True, float("nan"), 2**31 - 1]
    lines = (folder / "run.jsonl").read_text(encoding="utf-8").splitlines()
    for _ in range(60):
        documents = [json.loads(line) for line in lines]
        container, key = chance.choice(list(places(documents)))
        container[key] = chance.choice(values)
        text = "\n".join(json.dumps(each) for each in documents)
        (folder / "changed.jsonl").write_text(text)
        for command in (["report"], ["replay", "bag", "--model", "m.onnx", "--golden"]):
            done = CliRunner().invoke(main, [*command, "changed.jsonl"])
            assert done.exception is None or isinstance(done.exception, SystemExit), text
            assert done.exit_code in (0, 1)
    (folder / "changed.jsonl").unlink()
    (folder / "changed.html").unlink(missing_ok=True)


def places(container):
    """Every place of a JSON document, as its container and key."""
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in list(items):
        yield container, key
        if isinstance(value, (dict, list)):
            yield from places(value)
