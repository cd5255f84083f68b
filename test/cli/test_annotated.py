"""Annotated photos: never in place of a photo, and each in a file of its own."""

import os
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture
from tiny_models import projection

from efv2_ros.cli.annotated import annotated_paths
from efv2_ros.cli.main import main


@pytest.fixture
def classify(tmp_path, monkeypatch):
    """Run `efv2 classify` in the test's folder."""
    monkeypatch.chdir(tmp_path)
    model = projection(tmp_path / "model.onnx")

    def classify(*arguments):
        command = ["classify", *map(str, arguments), "--model", str(model), "--top-k", "1"]
        return CliRunner().invoke(main, command)

    return classify


def smooth(seed):
    """A picture that JPEG changes little, 320x240."""
    return cv2.resize(picture(seed, 4, 3), (320, 240), interpolation=cv2.INTER_CUBIC)


def photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), smooth(seed))
    return path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.*g") if path.is_file()}


@pytest.mark.parametrize(
    ("photos", "target", "replaced"),
    [
        (["set"], "set", "set/1.jpg"),
        (["set/1.jpg", "set/2.jpg"], "set", "set/1.jpg"),
        (["set/1.jpg"], "set/1.jpg", "set/1.jpg"),
        (["set/1.jpg"], "set", "set/1.jpg"),
        (["set"], "alias", "set/1.jpg"),
        (["other"], "other", "set/1.jpg"),
        (["set/1.jpg"], "hard.jpg", "set/1.jpg"),
    ],
)
def test_a_photo_is_never_overwritten(classify, tmp_path, photos, target, replaced):
    for number in (1, 2):
        photo(tmp_path / f"set/{number}.jpg", number)
    photo(tmp_path / "other/3.png", 3)
    (tmp_path / "other/1.jpg").symlink_to("../set/1.jpg")
    (tmp_path / "alias").symlink_to("set")
    os.link(tmp_path / "set/1.jpg", tmp_path / "hard.jpg")
    before = contents(tmp_path)
    result = classify(*photos, "--annotate", target)
    assert result.exit_code == 1
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"Error: --annotate {target} would overwrite the photo ")
    assert (tmp_path / sentence.split("the photo ")[1].split(":")[0]).samefile(tmp_path / replaced)
    assert result.stdout == ""  # said before the work
    assert contents(tmp_path) == before


def test_photos_of_one_name_get_a_file_each(classify, tmp_path):
    for number, name in enumerate(("left/1.jpg", "right/1.jpg", "right/2.jpg", "right/2.png")):
        photo(tmp_path / name, number)
    result = classify("left", "right", "--annotate", "new/out")
    assert result.exit_code == 0, result.output
    found = {path.name: cv2.imread(str(path)) for path in (tmp_path / "new/out").iterdir()}
    assert sorted(found) == ["2_jpg.jpg", "2_png.jpg", "left_1.jpg", "right_1.jpg"]
    below = slice(150, None)  # where nothing is drawn
    for name, number in (("left_1", 0), ("right_1", 1), ("2_jpg", 2), ("2_png", 3)):
        difference = cv2.absdiff(found[f"{name}.jpg"][below], smooth(number)[below])
        assert difference.mean() < 5
        assert cv2.absdiff(found[f"{name}.jpg"][below], smooth(number + 1)[below]).mean() > 20


NAMES = [
    (["a/1.jpg", "b/2.jpg"], ["1", "2"]),
    (["a/1.jpg", "b/1.jpg"], ["a_1", "b_1"]),
    (["a/1.jpg", "a/1.png"], ["1_jpg", "1_png"]),
    (["a/1.jpg", "a/1.png", "b/1.jpg"], ["a_1_jpg", "a_1_png", "b_1_jpg"]),
    (["x/a/1.jpg", "y/a/1.jpg"], ["x_a_1", "y_a_1"]),
    (["a/1.jpg", "a/../a/1.jpg", "a/2.jpg"], ["1", "1", "2"]),
    (["a/1.jpg", "b/1.jpg", "c/a_1.jpg"], ["a_1", "b_1", "a_1_2"]),
    (["a/X.jpg", "b/x.jpg"], ["a_X", "b_x"]),
]


@pytest.mark.parametrize(("photos", "names"), NAMES)
def test_names(tmp_path, monkeypatch, photos, names):
    monkeypatch.chdir(tmp_path)
    for each in photos:
        photo(Path(each))
    assert annotated_paths([Path(each) for each in photos], Path("out")) == [
        Path("out", f"{name}.jpg") for name in names
    ]


PARTS = st.sampled_from(["a", "b", "a_b", "A", "1"])
SUFFIXES = st.sampled_from([".jpg", ".png", ".JPG"])


@given(st.lists(st.tuples(st.lists(PARTS, max_size=3), PARTS, SUFFIXES), min_size=2, max_size=8))
def test_every_photo_has_a_name_of_its_own(tmp_path_factory, drawn):
    folder = tmp_path_factory.getbasetemp() / "names"
    photos = [folder.joinpath(*folders, f"{stem}{suffix}") for folders, stem, suffix in drawn]
    for each in photos:
        each.parent.mkdir(parents=True, exist_ok=True)
        each.touch()
    paths = annotated_paths(photos, folder / "out")
    names = dict(zip(photos, paths, strict=True))
    assert len({str(path).casefold() for path in names.values()}) == len(names)
    assert paths == annotated_paths(photos, folder / "out")
    assert all(names[each].stem.casefold().find(each.stem.casefold()) >= 0 for each in photos)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("x.nothing", "cannot write x.nothing: name a .jpg or .png file"),
        ("x", "cannot write x: name a .jpg"),
        ("gone/x.jpg", "cannot write gone/x.jpg: there is no folder"),
        ("file/x.jpg", "cannot write file/x.jpg"),
    ],
)
def test_what_cannot_be_written(classify, tmp_path, target, words):
    photo(tmp_path / "1.jpg")
    (tmp_path / "file").touch()
    result = classify("1.jpg", "--annotate", target)
    assert (result.exit_code, words in result.stderr) == (1, True)
    assert "Traceback" not in result.output


def test_several_photos_need_a_folder(classify, tmp_path):
    photo(tmp_path / "1.jpg")
    photo(tmp_path / "2.jpg")
    (tmp_path / "out.jpg").write_text("mine")
    result = classify("1.jpg", "2.jpg", "--annotate", "out.jpg")
    assert (result.exit_code, (tmp_path / "out.jpg").read_text()) == (1, "mine")
    assert result.stderr.startswith("Error: out.jpg: ")
