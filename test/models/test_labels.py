"""Label files of every kind, good and bad."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efv2_ros.models.catalog import Catalog, CatalogError
from efv2_ros.models.labels import LabelsError, load_class_names, load_labels
from efv2_ros.resources import share_path

THREE = ("tench", "goldfish", "great white shark")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "tench\ngoldfish\ngreat white shark\n"),
        ("a.txt", "tench\r\ngoldfish\r\ngreat white shark\r\n\r\n"),
        ("a.txt", "\ufefftench\n goldfish \ngreat white shark"),
        ("labels", "tench\ngoldfish\ngreat white shark"),
        ("a.json", '["tench", "goldfish", "great white shark"]'),
        ("a.json", '{"2": "great white shark", "0": "tench", "1": "goldfish"}'),
        ("a.json", '{"0": ["n1", "tench"], "1": ["n2", "goldfish"], "2": ["great white shark"]}'),
        ("a.yaml", "- tench\n- goldfish\n- great white shark\n"),
        ("a.YML", "1: goldfish\n0: tench\n2: great white shark\n"),
    ],
)
def test_good_files(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert load_labels(path, 3) == THREE


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"tench\ngoldfish\n", "2 names, but the model has 3"),
        ("a.json", b'["tench", "goldfish"]', "2 names, but the model has 3"),
        ("a.json", b'{"0": "a", "1": "b", "2": "c", "3": "d"}', "4 names, but the model has 3"),
        ("a.yaml", b"- tench\n- goldfish\n", "2 names, but the model has 3"),
        ("a.yaml", b"0: a\n1: b\n2: c\n3: d\n", "4 names, but the model has 3"),
        ("a.txt", b"tench\n\ngoldfish\n", "no name for class 1"),
        ("a.txt", b"\xff\xfe\x80", "cannot read"),
        ("a.txt", b"", "0 names"),
        ("a.json", b"[1, 2, 3]", "no name for class 0"),
        ("a.json", b'["a", [], "c"]', "no name for class 1"),
        ("a.json", b'["a", null, "c"]', "no name for class 1"),
        ("a.json", b'{"0": "a", "1": "b", "3": "d"}', "no name for class 2"),
        ("a.json", b'{"0": "a", "00": "b", "2": "c"}', "names class 0 twice"),
        ("a.json", b'{"tench": 0}', "'tench' where a class id goes"),
        ("a.json", b'"tench"', "is neither a list nor a map"),
        ("a.json", b"[", "not valid JSON"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.yaml", b"a: [", "not valid YAML"),
        ("a.yaml", b"", "is neither a list nor a map"),
        ("a.yaml", b"!!python/object:os.system {}", "not valid YAML"),
        ("a.yaml", b"[" * 5000, "not valid YAML"),
        ("a.yaml", b"a: 2001-13-45", "not valid YAML"),
        ("a.yaml", b"!!timestamp a", "not valid YAML"),
        ("a.yaml", b"!!bool a", "not valid YAML"),
        ("a.yaml", b".inf: a\n", "inf where a class id goes"),
        ("a.yaml", b"? 0x" + b"f" * 5000 + b"\n: a\n", "no name for class 0"),
        ("a.yaml", b"? [a]\n: b\n", "not valid YAML|where a class id goes"),
        ("a.json", b"[" + b"9" * 4000 + b", 1, 2]", "no name for class 0"),
        ("a.json", b"[" + b"9" * 5000 + b", 1, 2]", "no name for class 0|not valid JSON"),
        ("a.json", b'["a", "\\ud800", "c"]', "class 1 is no text"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LabelsError, match=message) as caught:
        load_labels(path, 3)
    assert str(path) in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text("0123", max_size=2) | st.text(max_size=3), inner, max_size=4)
        ),
        max_leaves=8,
    ),
    st.sampled_from([".json", ".yaml"]),
)
def test_whatever_a_file_holds_is_used_or_refused(tmp_path_factory, document, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_text(json.dumps(document))
    with suppress(LabelsError):
        assert all(name.encode() for name in load_labels(path, 3))


@given(st.binary() | st.text().map(str.encode), st.sampled_from([".json", ".yaml", ".txt"]))
def test_whatever_bytes_a_file_holds_are_used_or_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    with suppress(LabelsError):
        assert len(load_labels(path, 3)) == 3


def test_all_that_a_class_is_called(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[["n01440764", 5, " tench "], ["goldfish"], "great white shark"]')
    assert load_class_names(path, 3) == (
        ("n01440764", "tench"), ("goldfish",), ("great white shark",),
    )  # fmt: skip
    assert load_labels(path, 3) == THREE
    shipped = load_class_names(share_path("models", "labels", "imagenet1k.json"), 1000)
    assert shipped[1] == ("n01443537", "goldfish")
    assert len({names[0] for names in shipped}) == len({names[1] for names in shipped}) == 1000


def test_missing_file(tmp_path):
    with pytest.raises(LabelsError, match="cannot read"):
        load_labels(tmp_path / "none.txt", 3)
    with pytest.raises(LabelsError, match="cannot read"):
        load_labels(tmp_path, 3)
    with pytest.raises(LabelsError, match="cannot read"):
        load_labels(Path("a\0b"), 3)


@pytest.mark.parametrize(
    ("read", "limit"), [(lambda path: load_labels(path, 3), "16"), (Catalog.load, "1")]
)
def test_what_could_be_read_for_ever_is_refused(tmp_path, read, limit):
    pipe, huge, errors = tmp_path / "pipe", tmp_path / "huge.txt", []
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(1 << 40)

    def attempt():
        for path in (pipe, Path("/dev/zero"), huge):
            try:
                read(path)
            except (LabelsError, CatalogError) as error:
                errors.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(30)
    assert [error.rpartition("it is ")[2] for error in errors] == [
        "not a regular file", "not a regular file", f"larger than {limit} MiB",
    ]  # fmt: skip
