"""Text of the user's is printed as it is: square brackets are no markup, colons no emoji."""

import json
import re
from pathlib import Path

import cv2
import pytest
import yaml
from bag_maker import image, make, picture, stamps, write
from click.testing import CliRunner
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from tiny_models import projection

import efv2_ros
from efv2_ros.cli.console import PlainConsole, image_bar
from efv2_ros.cli.main import main

LABELS = ("[background]", "[/]", "[/red]", "[bold]x", ":dog:", "\\[a]", "[link=file:///]y", "金鱼")
NAME = "[/red] :dog: [b]"  # a folder and a file in it


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `efv2` in the test's folder, with a model whose labels are all of `LABELS`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    model = projection(tmp_path / "model.onnx")
    labels = [LABELS[number % len(LABELS)] for number in range(1000)]
    (tmp_path / "labels.json").write_text(json.dumps(labels))

    def run(command, *arguments, model_options=True, status=0):
        if model_options:
            arguments = [*arguments, "--model", model, "--labels", "labels.json"]
        result = CliRunner().invoke(main, [command, *map(str, arguments)])
        assert result.exit_code == status, result.output
        return result

    return run


def test_labels_and_names_of_photos(run, tmp_path):
    name = f"{NAME}.png"
    write_picture(tmp_path / name, 0)
    for number in range(8):
        write_picture(tmp_path / name, number)
        shown = run("classify", name).stdout
        (report,) = json.loads(run("classify", name, "--json").stdout)
        assert name in shown
        for each in report["results"]:
            assert re.search(rf"│ +{each['class_id']} │ {re.escape(each['label'])} ", shown)
    (tmp_path / name).write_bytes(b"")
    assert f"{name}: " in run("classify", name, status=1).stderr


def test_names_of_bags_topics_and_runs(run, tmp_path):
    bag = NAME
    (tmp_path / bag).parent.mkdir()
    make(tmp_path / bag, 3, topic="/[red]image")
    golden = "[green]golden[].jsonl"
    shown = run("replay", bag, "--golden", golden, "--update-golden").stdout
    assert "3 images of /[red]image: 3 classified" in shown
    assert f"wrote {golden}: 3 images" in shown
    assert f"the same as {golden}: 3 images" in run("replay", bag, "--golden", golden).stdout
    lines = (tmp_path / golden).read_text().splitlines()
    changed = json.loads(lines[1])
    changed["results"][0]["class_id"] += 1
    (tmp_path / golden).write_text("\n".join([lines[0], json.dumps(changed), *lines[2:]]))
    shown = run("replay", bag, "--golden", golden, status=1).stdout
    assert f"1 of 3 images differ from {golden}" in shown
    assert f"but {changed['results'][0]['label']} (" in shown
    shown = run("report", golden, "-o", "[b].html", model_options=False).stdout
    assert "wrote [b].html (3 images" in shown
    write_picture(tmp_path / "[i]1.png", 1)
    (tmp_path / "[/]broken.png").write_bytes(b"")
    made = run("record-demo", "[i]new", "[/]broken.png", "[i]1.png", model_options=False)
    assert "left out: [/]broken.png" in made.stderr
    assert "[i]new: 1 image of bgr8" in made.stdout


def test_the_reason_of_a_drop(run, tmp_path):
    kind = image(0, stamps(1)[0], encoding="[/]raw[red]")
    write(tmp_path / "bag", [("/image", stamps(1)[0], kind)])
    assert "[/]raw[red]" in run("replay", "bag").stdout


def test_names_and_files_of_models(run, tmp_path):
    entry = {
        "input": {"height": 224, "width": 224},
        "classes": 1000,
        "files": {"onnx": "http://localhost/mine.onnx"},
    }
    (tmp_path / "[").mkdir()
    (tmp_path / "[/]c.yaml").write_text(yaml.safe_dump({"models": {"[bold]s": entry}}))
    arguments = ["models", "list", "--catalog", "[/]c.yaml"]
    assert "[bold]s" in run(*arguments, model_options=False).stdout
    built = run("models", "build", "s0", "[]x.onnx", model_options=False)
    assert "wrote []x.onnx" in built.stdout


def test_classes_of_an_evaluation(run, tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps([f"[/]{n}[red]" for n in range(1000)]))
    for number in range(6):
        write_picture(tmp_path / f"set/{number % 2}/[/]{number}.png", number)
    write_picture(tmp_path / "set/none/[b]x.png", 5)
    result = run("evaluate", "set")
    assert "none/[b]x.png" in result.stderr
    assert "[/]1[red]" in result.stdout


def test_a_path_that_is_no_utf_8(run, tmp_path):
    name = b"\xff[b].png".decode(errors="surrogateescape")
    write_picture(tmp_path / name, 1)
    assert r"\udcff[b].png" in run("classify", name).stdout
    (tmp_path / name).write_bytes(b"")
    assert r"\udcff[b].png" in run("classify", name, status=1).stderr
    bag = b"bag\xff".decode(errors="surrogateescape")
    make(tmp_path / bag, 2)
    run("replay", bag, "--golden", "g.jsonl", "--update-golden", "--out", f"{bag}2")
    assert "the same as" in run("replay", bag, "--golden", "g.jsonl").stdout
    run("report", "g.jsonl", model_options=False)
    run("report", f"{bag}2", "-o", f"{bag}.html", model_options=False)


def write_picture(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture(number))[1].tobytes())


def printed(render):
    console = PlainConsole()
    with console.capture() as capture:
        render(console)
    return capture.get()


def test_everything_a_console_prints():
    text = "[/] [red]x :dog:"
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    assert printed(lambda console: console.print(table)).count(text) == 4
    assert printed(lambda console: console.print(text, style="red")) == f"{text}\n"
    assert text in str(PlainConsole().status(text).renderable.text)
    bar = image_bar()
    assert isinstance(bar, Progress)
    task = bar.add_task(text, total=1)
    column = bar.columns[0]
    assert column.render(bar.tasks[task]) == Text(text)


def test_no_command_writes_markup():
    """Since the consoles print it as it is."""
    for file in Path(efv2_ros.__file__).parent.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert "rich.markup" not in source, file
        assert not re.search(r"\[/(red|green|yellow|blue|cyan|bold|dim)", source), file
