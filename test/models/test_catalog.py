import dataclasses
import json
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
import tiny_models
import yaml
from bin_files import bin_file
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from efv2_ros.errors import Efv2Error
from efv2_ros.models.catalog import (
    IMAGENET_MEAN,
    IMAGENET_SCALE,
    Catalog,
    CatalogError,
    ModelFileSource,
    spec_for_file,
)
from efv2_ros.models.modelfile import MODEL_FORMATS, ModelError, ModelFormatError, read_model_file
from efv2_ros.resources import cache_dir, share_path


def minimal(**changes):
    entry = {"input": {"height": 192, "width": 256}, "classes": 7, **changes}
    return {name: value for name, value in entry.items() if value is not ...}


@pytest.fixture
def load(tmp_path):
    """Load the shipped catalog and one made of `models`, or of text."""

    def load(models):
        path = tmp_path / "mine.yaml"
        text = models if isinstance(models, str) else yaml.safe_dump({"models": models})
        path.write_text(text, encoding="utf-8")
        return Catalog.load(path)

    return load


# --- The shipped catalog


def test_every_size_is_there_by_size_and_name():
    catalog = Catalog.load()
    *zoos, cards = catalog
    assert [spec.size for spec in zoos] == ["s0", "s1", "s2"]
    for spec in zoos:
        assert catalog[spec.size] is catalog[spec.name] is spec
        assert spec.name == f"efficientformerv2_{spec.size}"
        assert (spec.height, spec.width, spec.classes) == (224, 224, 1000)
        assert (spec.mean, spec.scale) == (IMAGENET_MEAN, IMAGENET_SCALE)
        assert (spec.nv12_range, spec.crop_pct) == ("full", 0.95)
        zoo = "https://archive.d-robotics.cc/downloads/rdk_model_zoo/rdk_x5/"
        compiled = f"EfficientFormerv2_{spec.size}_224x224_nv12.bin"
        exported = f"efficientformerv2_{spec.size}_deploy.onnx"
        assert spec.files == {
            "bin": ModelFileSource(zoo + compiled, compiled),
            "onnx": ModelFileSource(zoo + exported, exported),
        }
        assert spec.published["throughput_fps"] > 100
    assert catalog["cards"] is catalog["efficientformerv2_s0_cards"] is cards
    assert (cards.height, cards.width, cards.classes) == (224, 224, 100)
    assert (cards.mean, cards.scale) == (IMAGENET_MEAN, IMAGENET_SCALE)
    assert (cards.nv12_range, cards.crop_pct) == ("full", 0.95)
    assert cards.files["bin"].url is None


def test_the_statistics_are_imagenets():
    for mean, scale, m, s in zip(
        IMAGENET_MEAN, IMAGENET_SCALE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True
    ):
        assert mean == pytest.approx(m * 255)
        assert scale == pytest.approx(1 / (s * 255), rel=1e-5)


def test_the_shipped_labels():
    labels = json.loads(Catalog.load()["s0"].labels.read_text(encoding="utf-8"))
    assert list(labels) == [str(index) for index in range(1000)]
    wnids, names = zip(*labels.values(), strict=True)
    # ImageNet-1k's classes are in the order of their WordNet ids.
    assert list(wnids) == sorted(set(wnids))
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in wnids)
    assert len({name.lower() for name in names}) == 1000
    assert labels["0"] == ["n01440764", "tench"]
    assert labels["1"] == ["n01443537", "goldfish"]
    assert labels["999"] == ["n15075141", "toilet tissue"]
    some = {134: "crane (bird)", 281: "tabby cat", 517: "crane (machine)", 638: "maillot"}
    assert {index: names[index] for index in some} == some


# --- A user's catalog


def test_a_new_model_is_added(load, tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n", encoding="utf-8")
    catalog = load(
        {
            "flowers": minimal(
                mean=[0, 0, 0],
                scale=[1, 0.5, 1],
                nv12_range="limited",
                crop_pct=1,
                labels="labels.txt",
                files={"onnx": "https://example.org/a%20b/flowers%201.onnx?raw=1", "bin": "f.bin"},
                published={"accuracy_percent": 90},
            )
        }
    )
    assert [spec.size for spec in catalog] == ["s0", "s1", "s2", "cards", "flowers"]
    spec = catalog["flowers"]
    assert (spec.height, spec.width, spec.classes) == (192, 256, 7)
    assert (spec.mean, spec.scale) == ((0.0, 0.0, 0.0), (1.0, 0.5, 1.0))
    assert (spec.nv12_range, spec.crop_pct) == ("limited", 1.0)
    assert spec.labels == tmp_path / "labels.txt"
    assert spec.files["onnx"].filename == "flowers 1.onnx"
    assert spec.files["bin"] == ModelFileSource(None, "f.bin", tmp_path)
    assert spec.published == {"accuracy_percent": 90.0}


def test_what_may_be_left_out(load):
    spec = load({"flowers": minimal()})["flowers"]
    assert (spec.size, spec.labels, dict(spec.files)) == ("flowers", None, {})
    assert (spec.mean, spec.scale, spec.nv12_range) == (IMAGENET_MEAN, IMAGENET_SCALE, "full")
    assert {spec: "usable as a key"}[spec]


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "my_own"])
def test_an_entry_of_the_same_name_or_size_replaces(load, name):
    catalog = load({name: minimal(size="s0")})
    assert catalog["s0"].name == name
    assert catalog["s0"].classes == 7
    assert len(catalog) == 4


def test_the_last_catalog_wins(tmp_path):
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for classes, path in enumerate(paths, start=1):
        path.write_text(yaml.safe_dump({"models": {"x": minimal(classes=classes)}}))
    assert Catalog.load(*paths)["x"].classes == 2


def test_an_unknown_model():
    with pytest.raises(CatalogError, match=r"no model 's9', only s0, s1, s2"):
        Catalog.load()["s9"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"classes": ...}, "classes: is missing"),
        ({"classes": 0}, "classes: must be positive, not 0"),
        ({"classes": "7"}, "classes: expected a whole number, not '7'"),
        ({"classes": True}, "classes: expected a whole number, not True"),
        ({"input": [224, 224]}, r"input: expected fields, not \[224, 224\]"),
        ({"input": {"height": 224}}, "input.width: is missing"),
        ({"input": {"height": 225, "width": 224}}, "input.height: must be even and positive"),
        ({"input": {"height": 2, "width": 2, "depth": 3}}, "input.depth: is not a field"),
        ({"mean": [1, 2]}, r"mean: expected three numbers \(R, G, B\), not \[1, 2\]"),
        ({"mean": "1,2,3"}, "mean: expected a list"),
        ({"mean": [1, 2, float("nan")]}, "mean: expected three numbers"),
        ({"scale": [1, 0, 1]}, "scale: must not be zero"),
        ({"nv12_range": "video"}, "nv12_range: must be full or limited, not 'video'"),
        ({"crop_pct": 0}, "crop_pct: must be above 0"),
        ({"crop_pct": 1.5}, "crop_pct: must be above 0 and at most 1"),
        ({"labels": "absent.txt"}, r"labels: there is no file .*absent\.txt"),
        ({"files": {"hbm": "x.hbm"}}, "files.hbm: is not a field"),
        ({"files": {"onnx": "https://example.org/"}}, "files.onnx: must be a URL or a plain"),
        ({"files": {"onnx": "../x.onnx"}}, "files.onnx: must be a URL or a plain"),
        ({"files": {"onnx": "https://example.org/..%2fx"}}, "files.onnx: must be a URL or a"),
        ({"published": {"fps": "fast"}}, "published.fps: expected a number"),
        ({"sizes": "s0"}, "sizes: is not a field of a catalog"),
        ({"classes": 10**400}, "classes: must be at most 1000000"),
        ({"input": {"height": 10**400, "width": 2}}, "input.height: must be at most 8192"),
        ({"mean": [10**400, 0, 0]}, "mean: expected three numbers"),
        ({"mean": [1e300, 0, 0]}, r"mean: must be within 1e\+09"),
        ({"mean": [True, 0, 0]}, "mean: expected three numbers"),
        ({"scale": [1, float("inf"), 1]}, "scale: expected three numbers"),
        ({"scale": [1, 1e-300, 1]}, "scale: must not be zero"),
        ({"crop_pct": 10**400}, "crop_pct: must be finite"),
        ({"published": {"fps": 10**400}}, "published.fps: must be finite"),
        ({"labels": "~nouser/x.txt"}, "labels: ~nouser/x.txt: "),
        ({"labels": "x" * 300}, "labels: .*too long"),
        ({"labels": "a\0b"}, "labels: there is no file"),
        ({"files": {"onnx": "https://[::1/x.onnx"}}, "files.onnx: is not a valid URL"),
        ({"files": {"onnx": "https://example.org:port/x"}}, "files.onnx: is not a valid URL"),
        ({"files": {"onnx": "https://example.org/ä.onnx"}}, "files.onnx: is not a valid URL"),
        ({"files": {"onnx": "https:///x.onnx"}}, "files.onnx: is not a valid URL.*no host"),
        ({"files": {"onnx": "x\0.onnx"}}, "files.onnx: must be a URL or a plain"),
    ],
)
def test_errors_name_file_entry_and_field(load, changes, complaint):
    with pytest.raises(CatalogError, match=rf"catalog .*mine\.yaml, models\.flowers\.{complaint}"):
        load({"flowers": minimal(**changes)})


def test_two_entries_of_one_size(load):
    with pytest.raises(CatalogError, match=r"models\.b\.size: another entry is 's7' too"):
        load({"a": minimal(size="s7"), "b": minimal(size="s7")})


# A small file that means 9**9 numbers.
ALIASES = "list0: &list0 0\n" + "".join(
    f"list{n}: &list{n} [{', '.join([f'*list{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models: [unclosed", "is not YAML"),
        ("", "expected fields, not None"),
        ("- a\n", "expected fields"),
        ("other: {}\n", "models: is missing"),
        ("models: {}\nmore: 1\n", "more: is not a field"),
        ("models: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("[" * 5000, "too deep"),
        ("models: " + "9" * 5000 + "\n", "(is not YAML|expected fields)"),
        ("models: 0x" + "f" * 5000 + "\n", "expected fields"),
        ("models: {a: 2001-13-45}\n", "is not YAML"),
        ("models: !!timestamp a\n", "is not YAML"),
        ("models: !!bool a\n", "is not YAML"),
        ("models:\n  ? 0x" + "f" * 5000 + "\n  : 1\n", "expected fields"),
        ("models: &a {a: *a}\n", "models.a.input: is missing"),
        (ALIASES + "models: *list9\n", "expected fields"),
    ],
)
def test_files_that_are_no_catalog(load, text, complaint):
    with pytest.raises(CatalogError, match=rf"catalog .*mine\.yaml.*{complaint}"):
        load(text)


def test_a_catalog_that_is_not_there(tmp_path):
    with pytest.raises(CatalogError, match=r"absent\.yaml cannot be read: No such file"):
        Catalog.load(tmp_path / "absent.yaml")


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.sampled_from(
            ["~nouser/x", "~", "https://[", "http://a:b/c", "a/b", "", "\0", "full", 10**400, "s0"]
        ),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)
FIELDS = [
    "size", "input", "classes", "mean", "scale", "nv12_range", "crop_pct", "labels", "files",
    "published",
]  # fmt: skip


@given(
    st.dictionaries(
        st.text(max_size=5) | st.integers(),
        values
        | st.builds(
            lambda changes: {**minimal(), **changes},
            st.dictionaries(
                st.sampled_from(FIELDS),
                values
                | st.dictionaries(st.sampled_from(["height", "width", "onnx", "bin"]), values)
                | st.lists(st.floats() | st.integers(), min_size=3, max_size=3),
                max_size=2,
            ),
        ),
        max_size=2,
    )
    | values
)
def test_whatever_a_catalog_holds_is_used_or_refused(tmp_path_factory, models):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(
        yaml.safe_dump({"models": models}, allow_unicode=True).encode("utf-8", "replace")
    )
    with suppress(Efv2Error):
        for spec in Catalog.load(path):
            assert np.isfinite([*spec.mean, *spec.scale, spec.crop_pct]).all()
            assert 0 not in spec.scale


@given(st.text(alphabet="[]{}:-&*! \n\"'ab0~#|>%@,?x.") | st.text() | st.binary())
def test_whatever_text_a_catalog_is_is_used_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    with suppress(Efv2Error):
        Catalog.load(path)


def test_a_catalog_of_an_impossible_name():
    for name in ("a\0b", "x" * 300):
        with pytest.raises(CatalogError, match="cannot be read"):
            Catalog.load(Path(name))


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (math.nan, 0, 0)},
        {"mean": (0, math.inf, 0)},
        {"scale": (1, 1, math.nan)},
        {"scale": (0, 1, 1)},
        {"scale": (1, 1)},
    ],
)
def test_a_model_that_could_not_be_fed_is_refused_wherever_it_is_made(changes):
    with pytest.raises(CatalogError, match="of efficientformerv2_s0 "):
        dataclasses.replace(Catalog.load()["s0"], **changes)


# --- A model without a catalog


@pytest.mark.parametrize("batch", [1, "N"])
def test_an_onnx_file_describes_itself(tmp_path, batch):
    path = tiny_models.mean_colour(tmp_path / "m.onnx", height=96, width=128, batch=batch)
    spec = spec_for_file(path, mean=(1, 2, 3), scale=(4, 5, 6), nv12_range="limited")
    assert (spec.name, spec.size) == ("m", "m")
    assert (spec.height, spec.width, spec.classes) == (96, 128, 3)
    assert (spec.mean, spec.scale, spec.nv12_range) == ((1, 2, 3), (4, 5, 6), "limited")


def test_weights_listed_as_inputs_are_not_images(tmp_path):
    """As exporters did before ONNX IR version 4."""
    path = tiny_models.projection(tmp_path / "m.onnx", classes=5)
    model = onnx.load(path)
    weights = model.graph.initializer[0]
    model.graph.input.append(
        helper.make_tensor_value_info(weights.name, TensorProto.FLOAT, weights.dims)
    )
    onnx.save(model, path)
    assert spec_for_file(path).classes == 5


def test_dynamic_sizes_must_be_given(tmp_path):
    path = tiny_models.mean_colour(tmp_path / "m.onnx", height="h", width="w")
    with pytest.raises(CatalogError, match="does not state its height: give it"):
        spec_for_file(path)
    spec = spec_for_file(path, height=64, width=32)
    assert (spec.height, spec.width) == (64, 32)


def test_arguments_must_not_contradict_the_file(tmp_path):
    path = tiny_models.mean_colour(tmp_path / "m.onnx")
    assert spec_for_file(path, classes=3).classes == 3
    with pytest.raises(CatalogError, match="its classes is 3, not 1000"):
        spec_for_file(path, classes=1000)


def test_a_model_of_another_kind(tmp_path):
    nodes = [helper.make_node("Identity", ["data"], ["output"])]
    path = tiny_models.save(tmp_path / "m.onnx", nodes, [1, 224, 224, 3], [1, 224, 224, 3])
    with pytest.raises(CatalogError, match="input of shape 1x3xHxW, and has 1x224x224x3"):
        spec_for_file(path)


def test_a_bin_takes_the_defaults(tmp_path, bin_content):
    path = tmp_path / "m.bin"
    path.write_bytes(bin_content)
    spec = spec_for_file(path)
    assert (spec.height, spec.width, spec.classes) == (224, 224, 1000)
    assert spec_for_file(path, height=192, width=256, classes=9).classes == 9


def test_a_bin_describes_itself(tmp_path):
    path = tmp_path / "m.bin"
    path.write_bytes(bin_file(sides=(192, 256), classes=9))
    spec = spec_for_file(path)
    assert (spec.height, spec.width, spec.classes) == (192, 256, 9)
    with pytest.raises(CatalogError, match="states that its classes is 9, not 10"):
        spec_for_file(path, classes=10)


@pytest.mark.parametrize(
    ("value", "nv12_range"), [("regular;", "full"), ("bt601_video;", "limited"), (";", None)]
)
def test_a_bin_states_the_range_it_was_compiled_for(tmp_path, value, nv12_range):
    path = tmp_path / "m.bin"
    path.write_bytes(bin_file(settings={"MARCH": "bayes-e", "INPUT_SPACE_AND_RANGE": value}))
    file = read_model_file(path, "bin")
    assert file.nv12_range == nv12_range
    assert file.metadata["MARCH"] == "bayes-e"


def test_a_bin_may_not_have_odd_sides(tmp_path, bin_content):
    path = tmp_path / "m.bin"
    path.write_bytes(bin_content)
    with pytest.raises(CatalogError, match="height: must be even"):
        spec_for_file(path, height=223, width=224)


def test_labels_that_are_not_there(tmp_path):
    path = tiny_models.mean_colour(tmp_path / "m.onnx")
    with pytest.raises(CatalogError, match="labels: there is no file"):
        spec_for_file(path, labels=tmp_path / "absent.txt")


# --- Model files


@pytest.fixture
def bin_content():
    """Fields of runtime.proto's ModelProto: ir_version = 1, compiler_version = 2, graph = 3."""
    graph = b"\x12\x04main" + b"\x1a\x80\x08" + bytes(1024)
    return b"\x08\x01" + b"\x12\x051.2.3" + b"\x1a" + bytes([len(graph) & 127 | 128, 8]) + graph


@pytest.fixture
def contents(tmp_path, bin_content):
    path = tiny_models.projection(tmp_path / "m.onnx", classes=4, height=64, width=64)
    return {"onnx": path.read_bytes(), "bin": bin_content}


@pytest.mark.parametrize("format", MODEL_FORMATS)
def test_whole_files_are_read(tmp_path, contents, format):
    path = tmp_path / "model"
    path.write_bytes(contents[format])
    file = read_model_file(path, format)
    assert (file.format, file.size) == (format, len(contents[format]))
    assert not file.untrained


@pytest.mark.parametrize("format", MODEL_FORMATS)
def test_no_cut_file_passes(tmp_path, contents, format):
    path = tmp_path / "model"
    for length in range(len(contents[format])):
        path.write_bytes(contents[format][:length])
        with pytest.raises(ModelFormatError):
            read_model_file(path, format)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\xef\xbb\xbf\r\n  <html lang='en'>", "is a web page"),
        (b'<?xml version="1.0"?><Error/>', "is a web page"),
        (b'{"error": "not found"}', "is not a whole"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a whole"),
        (b"PK\x03\x04" + bytes(100), "is not a whole"),
        (bytes(100), "is not a whole"),
        (b"\x08\x01", "holds no network"),
        (b"\x08\x08\x3a\x00", "holds no network"),
        (b"\x08" + b"\xff" * 20, "is not a whole"),
    ],
)
@pytest.mark.parametrize("format", MODEL_FORMATS)
def test_foreign_files(tmp_path, format, content, complaint):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=complaint):
        read_model_file(path, format)


@pytest.mark.parametrize("format", MODEL_FORMATS)
def test_the_other_format(tmp_path, contents, format):
    other = {"onnx": "bin", "bin": "onnx"}[format]
    path = tmp_path / "model"
    path.write_bytes(contents[other])
    with pytest.raises(ModelFormatError, match=rf"is a \.{other} model and a \.{format} is need"):
        read_model_file(path, format)


def test_shapes_and_metadata_are_what_onnx_reads(tmp_path):
    path = tiny_models.mean_colour(tmp_path / "m.onnx", height=96, width=128, batch="N")
    model = onnx.load(path)
    helper.set_model_props(model, {"weights": "untrained seed 0", "größe": "s0"})
    onnx.save(model, path)
    file = read_model_file(path, "onnx")
    assert file.input_shapes == ((None, 3, 96, 128),)
    assert file.output_shapes == ((None, 3),)
    assert file.metadata == {"weights": "untrained seed 0", "größe": "s0"}
    assert file.untrained


@given(st.binary(max_size=200), st.sampled_from(MODEL_FORMATS))
def test_whatever_bytes_a_file_holds_are_read_or_refused(tmp_path_factory, content, format):
    path = tmp_path_factory.getbasetemp() / "model.any"
    path.write_bytes(content)
    with suppress(ModelError):
        read_model_file(path, format)


def test_a_file_of_an_impossible_name():
    with pytest.raises(ModelError, match="cannot be read: embedded null"):
        read_model_file(Path("a\0b"), "onnx")


def test_a_user_without_a_home_folder(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(Efv2Error, match="set XDG_CACHE_HOME"):
        cache_dir()


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        read_model_file(tmp_path, "onnx")


# --- Where things are


def test_the_checkout_has_its_files():
    assert share_path("models", "catalog.yaml").samefile(
        Path(__file__).parents[2] / "models" / "catalog.yaml"
    )


def test_installed_files_are_found_by_ament_prefix(tmp_path, monkeypatch):
    installed = tmp_path / "overlay" / "share" / "efv2_ros" / "only_installed"
    installed.mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'underlay'}::{tmp_path / 'overlay'}")
    assert share_path("only_installed") == installed


def test_a_missing_share_file_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"absent\.txt .*{tmp_path}/share/efv2_ros"):
        share_path("absent.txt")


@pytest.mark.parametrize("xdg", ["", "relative/path", None])
def test_the_cache_is_in_the_home_folder(tmp_path, monkeypatch, xdg):
    monkeypatch.setenv("HOME", str(tmp_path))
    if xdg is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert cache_dir() == tmp_path / ".cache" / "efv2_ros"


def test_the_cache_is_where_xdg_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "efv2_ros"
