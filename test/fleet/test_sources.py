"""Which bags a command's arguments mean, and the names of their results."""

import pytest
from bag_maker import make

from efv2_ros.bags.errors import BagError
from efv2_ros.fleet.sources import Source, find_bags


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def found(*arguments):
    return [each.location for each in find_bags([str(each) for each in arguments])]


def test_a_bag_is_itself(tmp_path):
    bag = make(tmp_path / "drive")
    file = next(bag.glob("*.mcap"))
    assert found(bag, file) == [str(bag), str(file)]


def test_folders_are_searched_in_the_order_of_names(tmp_path):
    for name in ("b", "a/y", "a/x"):
        touch(tmp_path / name / "metadata.yaml")
        touch(tmp_path / name / "other.mcap")
    touch(tmp_path / "c" / "loose.db3.zstd")
    touch(tmp_path / "c" / "notes.txt")
    touch(tmp_path / ".hidden" / "x.mcap")
    assert found(tmp_path) == [
        str(tmp_path / each) for each in ("a/x", "a/y", "b", "c/loose.db3.zstd")
    ]


def test_parts_of_a_bag_without_a_description_are_one_bag(tmp_path):
    for number in (0, 1, 10):
        touch(tmp_path / "killed" / f"killed_{number}.mcap")
    touch(tmp_path / "loose" / "monday.mcap")
    touch(tmp_path / "loose" / "tuesday.mcap")
    touch(tmp_path / "mixed" / "one_0.mcap")
    touch(tmp_path / "mixed" / "two_0.mcap")
    assert found(tmp_path) == [
        str(tmp_path / each)
        for each in (
            "killed", "loose/monday.mcap", "loose/tuesday.mcap", "mixed/one_0.mcap",
            "mixed/two_0.mcap",
        )
    ]  # fmt: skip


def test_a_list_names_bags_relative_to_itself(tmp_path):
    touch(tmp_path / "bags/one/metadata.yaml")
    touch(tmp_path / "bags/two/metadata.yaml")
    inner = tmp_path / "bags" / "all.txt"
    inner.write_text("# of Monday\n\n  one \ns3://bucket/three\n")
    outer = tmp_path / "outer"
    outer.write_text("bags/all.txt\nbags\n")
    bags = tmp_path / "bags"
    assert found(outer) == [str(bags / "one"), "s3://bucket/three", str(bags / "two")]


def test_a_bag_that_is_named_twice_is_one(tmp_path):
    touch(tmp_path / "one/metadata.yaml")
    assert found(tmp_path / "one", tmp_path, tmp_path / "one") == [str(tmp_path / "one")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "there is no bag "),
        ("empty", "folder", "there is no bag in "),
        ("bytes.txt", b"\xff\xfe\x00", "neither a bag nor a list"),
        ("list.txt", b"nothing\n", "there is no bag .*nothing"),
    ],
)
def test_what_is_no_bag(tmp_path, name, content, message):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BagError, match=message):
        find_bags([str(path)])


def test_a_list_that_names_itself(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("list.txt\n")
    with pytest.raises(BagError, match="names itself"):
        find_bags([str(path)])


def test_names_tell_bags_apart():
    urls = [
        "s3://b/mon/drive", "s3://b/tue/drive/", "s3://b/tue/walk.mcap", "https://h/x/run.db3.zstd",
        "gs://a/same", "s3://a/same",
    ]  # fmt: skip
    assert find_bags(urls) == [
        Source("mon__drive", urls[0]),
        Source("tue__drive", urls[1]),
        Source("walk", urls[2]),
        Source("run", urls[3]),
        Source("a__same__1", urls[4]),
        Source("a__same__2", urls[5]),
    ]


def test_names_are_file_names(tmp_path):
    names = ["..", "a b", "ü?x", "new\nline", "x" * 100]
    bags = [str(touch(tmp_path / f"b{each}" / "metadata.yaml").parent) for each in names]
    found = [each.name for each in find_bags(bags)]
    assert found == ["b..", "ba b", "bü_x", "bnew_line", "b" + "x" * 100]
    for each in found:
        (tmp_path / f"{each}.jsonl").touch()
