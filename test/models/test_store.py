import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("onnx")

import onnx
import tiny_models
from click.testing import CliRunner
from http_server import serving

from efv2_ros.cli.models import models
from efv2_ros.models import built as built_models
from efv2_ros.models import store
from efv2_ros.models.catalog import Catalog, ModelFileSource, ModelSpec
from efv2_ros.models.download import DownloadError, DownloadStoppedError
from efv2_ros.models.lock import Lock
from efv2_ros.models.modelfile import ModelCorruptError, ModelError, ModelFormatError
from efv2_ros.models.store import ModelNotFoundError, fetch, inventory, resolve, status
from efv2_ros.resources import cache_dir

# ModelProto of runtime.proto: ir_version = 1, graph = 3.
BIN = b"\x08\x01\x1a\x06\x12\x04main"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The folders that are searched, all there and empty."""
    places = {
        "EFV2_MODEL_DIR": tmp_path / "models",
        "cache": cache_dir() / "models",
        "board": tmp_path / "board",
    }
    for folder in places.values():
        folder.mkdir(parents=True)
    monkeypatch.setenv("EFV2_MODEL_DIR", str(places["EFV2_MODEL_DIR"]))
    monkeypatch.setattr(store, "BOARD_DIR", places["board"])
    return places


def kept(url):
    """Where a download is kept."""
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache_dir() / "models" / key / url.rpartition("/")[2]


@pytest.fixture
def model(tmp_path):
    """A model's bytes: `model(seed)`."""

    def model(seed=0):
        path = tiny_models.projection(tmp_path / "tiny.onnx", 10, height=64, width=64, seed=seed)
        return path.read_bytes()

    return model


@pytest.fixture
def server(monkeypatch, model):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.behaviour.content = model()
        yield server


@pytest.fixture
def spec(server):
    return ModelSpec(
        "tiny",
        "t0",
        64,
        64,
        10,
        files={
            "onnx": ModelFileSource(server.url("tiny.onnx"), "tiny.onnx"),
            "bin": ModelFileSource(server.url("tiny.bin"), "tiny.bin"),
        },
    )


# --- Finding


def test_the_order_of_places(spec, places, tmp_path):
    own = tmp_path / "own.bin"
    for path in [own, *(folder / "tiny.bin" for folder in places.values())]:
        path.write_bytes(BIN)
    found = resolve(spec, "bin", model_path=own)
    assert (found.path, found.origin) == (own, "model_path")
    for origin, folder in places.items():
        found = resolve(spec, "bin", allow_download=True)
        assert (found.path, found.origin) == (folder / "tiny.bin", origin)
        found.path.unlink()
    with pytest.raises(ModelNotFoundError):
        resolve(spec, "bin")


def test_the_board_has_no_onnx(spec, places, model):
    (places["board"] / "tiny.onnx").write_bytes(model())
    with pytest.raises(ModelNotFoundError):
        resolve(spec, "onnx")


def test_what_is_found_is_described(spec, places, model):
    path = places["cache"] / "tiny.onnx"
    path.write_bytes(model())
    found = resolve(spec, "onnx")
    assert found.spec is spec
    assert found.format == "onnx"
    assert found.size == len(model())
    assert found.sha256 == hashlib.sha256(model()).hexdigest()
    assert not found.untrained


def test_model_path_may_be_a_folder_or_any_name(spec, places, tmp_path, model, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (folder / "tiny.onnx", folder / "renamed"):
        path.write_bytes(model())
    assert resolve(spec, "onnx", model_path=folder).path == folder / "tiny.onnx"
    assert resolve(spec, "onnx", model_path=folder / "renamed").path == folder / "renamed"
    monkeypatch.setenv("HOME", str(tmp_path))
    tilde = type(folder)("~/folder")
    assert resolve(spec, "onnx", model_path=tilde).path == folder / "tiny.onnx"


def test_model_path_is_not_passed_over(spec, places, tmp_path, model):
    """Nothing else is taken, wherever it may come from."""
    (places["cache"] / "tiny.onnx").write_bytes(model())
    for path, complaint in [
        (tmp_path / "absent.onnx", "absent.onnx is no file"),
        (places["board"], "board holds no file tiny.onnx"),
    ]:
        with pytest.raises(ModelNotFoundError, match=complaint):
            resolve(spec, "onnx", model_path=path, allow_download=True, allow_untrained=True)


def test_model_path_of_the_other_format(spec, tmp_path, model):
    path = tmp_path / "own.onnx"
    path.write_bytes(model())
    with pytest.raises(ModelFormatError, match=r"is a \.onnx model and a \.bin is needed"):
        resolve(spec, "bin", model_path=path)


def test_not_found_names_file_places_and_command(spec, places, server):
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(spec, "bin")
    assert str(caught.value) == (
        f"tiny.bin is not in {places['EFV2_MODEL_DIR']}, {places['cache']}, {places['board']}: "
        "fetch it with `efv2 models fetch t0 --format bin`"
    )
    assert server.requests == []


def test_not_found_tells_of_the_variable(spec, places, monkeypatch):
    monkeypatch.delenv("EFV2_MODEL_DIR")
    with pytest.raises(ModelNotFoundError, match=r"\$EFV2_MODEL_DIR \(not set\), .*--format onnx"):
        resolve(spec, "onnx")


def test_a_file_without_an_address(places):
    spec = ModelSpec("own", "own", 64, 64, 3, files={"onnx": ModelFileSource(None, "own.onnx")})
    with pytest.raises(ModelNotFoundError, match=r"own\.onnx is not in .*: put the file there"):
        resolve(spec, "onnx", allow_download=True)
    with pytest.raises(ModelNotFoundError, match=r"lists no \.bin of own: set model_path"):
        resolve(spec, "bin", allow_download=True)
    for format in ("onnx", "bin"):
        with pytest.raises(ModelNotFoundError, match="no URL"):
            fetch(spec, format)


# --- Fetching


def test_a_download_is_locked_and_found_again(spec, places, server, model):
    told = []
    first = resolve(
        spec,
        "onnx",
        allow_download=True,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert first.origin == "download"
    assert first.path == kept(server.url("tiny.onnx"))
    assert first.path.read_bytes() == model()
    assert told[-1] == (len(model()), len(model()))
    lock = json.loads(Lock.path_for(first.path).read_text())
    assert lock.pop("fetched_at").endswith("+00:00")
    assert lock == {"url": server.url("tiny.onnx"), "size": first.size, "sha256": first.sha256}
    assert {path.name for path in first.path.parent.iterdir()} == {"tiny.onnx", "tiny.onnx.lock"}
    assert list(places["cache"].iterdir()) == [first.path.parent]

    again = resolve(spec, "onnx", allow_download=True)
    assert again == dataclasses.replace(first, origin="cache")
    assert fetch(spec, "onnx") == again
    assert len(server.requests) == 1


@pytest.fixture
def fetched(spec, places):
    """A file that was fetched, with its lock."""
    return fetch(spec, "onnx").path


def test_a_changed_file_is_not_loaded(spec, fetched, model):
    fetched.write_bytes(model(seed=1))
    with pytest.raises(
        ModelCorruptError, match=r"has changed .*efv2 models fetch t0 --format onnx"
    ):
        resolve(spec, "onnx", allow_download=True, allow_untrained=True)


@pytest.mark.parametrize("damage", ["bit", "cut", "empty"])
def test_a_damaged_file_is_not_loaded_and_fetch_mends_it(spec, fetched, model, damage):
    good = fetched.read_bytes()
    flipped = good[:-200] + bytes([good[-200] ^ 1]) + good[-199:]
    fetched.write_bytes({"bit": flipped, "cut": good[:-1], "empty": b""}[damage])
    with pytest.raises(ModelCorruptError):
        resolve(spec, "onnx")
    assert status(spec, "onnx").problem is not None
    assert fetch(spec, "onnx").origin == "download"
    assert fetched.read_bytes() == good
    assert status(spec, "onnx").problem is None


def test_a_file_elsewhere_is_held_to_its_lock(spec, fetched, tmp_path, model):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(model(seed=1))
    Lock.path_for(copy).write_bytes(Lock.path_for(fetched).read_bytes())
    with pytest.raises(ModelCorruptError, match=r"delete .*copy\.onnx\.lock if it is right"):
        resolve(spec, "onnx", model_path=copy)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"size": 1}', "null"])
def test_a_damaged_lock(spec, fetched, content):
    Lock.path_for(fetched).write_text(content)
    for attempt in (resolve, fetch):
        with pytest.raises(ModelCorruptError, match=r"onnx\.lock cannot be used: delete it"):
            attempt(spec, "onnx")
    Lock.path_for(fetched).unlink()
    assert not status(spec, "onnx").locked
    assert resolve(spec, "onnx").path == fetched


def test_a_good_file_is_kept_without_writing(spec, fetched):
    """The cache may be read-only."""
    folder = fetched.parent
    os.utime(folder, ns=(0, 0))
    assert fetch(spec, "onnx").origin == "cache"
    assert folder.stat().st_mtime_ns == 0


def test_a_new_version_is_taken_only_if_meant(spec, fetched, server, model):
    good = fetched.read_bytes()
    server.behaviour.content = model(seed=1)
    server.behaviour.etag = '"2"'
    assert fetch(spec, "onnx").origin == "cache"  # the file is good: nothing to do
    fetched.unlink()
    with pytest.raises(ModelCorruptError, match=r"another file.*--format onnx --update`"):
        fetch(spec, "onnx")
    assert not fetched.exists()

    fetched.write_bytes(good)
    assert fetch(spec, "onnx", update=True).sha256 == hashlib.sha256(model(seed=1)).hexdigest()
    assert resolve(spec, "onnx").path.read_bytes() == model(seed=1)


def test_what_is_not_a_model_never_replaces_one(spec, fetched, server, model):
    good = fetched.read_bytes()
    lock = Lock.path_for(fetched).read_bytes()
    for content, complaint in [
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "is a web page"),
        (b'{"error": "gone"}', "is not a whole"),
        (good[:-1], "is not a whole"),
        (b"", "is empty"),
        (BIN, r"is a \.bin model and a \.onnx is needed"),
    ]:
        server.behaviour.content = content
        with pytest.raises(
            ModelFormatError, match=f"tiny.onnx did not return a model: .*{complaint}"
        ):
            fetch(spec, "onnx", update=True)
        assert fetched.read_bytes() == good
        assert Lock.path_for(fetched).read_bytes() == lock
        assert {path.name for path in fetched.parent.iterdir()} == {
            "tiny.onnx",
            "tiny.onnx.lock",
        }
    server.behaviour.content = model()
    server.behaviour.claimed_length = len(good) - 1  # a length that cuts the file short
    with pytest.raises(ModelFormatError, match="is not a whole"):
        fetch(spec, "onnx", update=True)
    server.behaviour.claimed_length = None
    server.behaviour.statuses = [404]
    with pytest.raises(DownloadError):
        fetch(spec, "onnx", update=True)
    assert fetched.read_bytes() == good
    assert resolve(spec, "onnx").path == fetched


def test_a_first_download_that_fails_leaves_nothing(spec, places, server):
    server.behaviour.content = b"<html></html>"
    with pytest.raises(ModelFormatError):
        resolve(spec, "onnx", allow_download=True)
    assert [path for path in places["cache"].rglob("*") if path.is_file()] == []


def test_processes_that_fetch_at_once(spec, places, server, model):
    code = (
        "import sys; from efv2_ros.models.catalog import ModelFileSource, ModelSpec;"
        "from efv2_ros.models.store import fetch;"
        "files = {'onnx': ModelFileSource(sys.argv[1], 'tiny.onnx')};"
        "print(fetch(ModelSpec('tiny', 't0', 64, 64, 10, files=files), 'onnx').origin)"
    )
    command = [sys.executable, "-c", code, server.url("tiny.onnx")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    origins = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(origins) == ["cache", "cache", "download"]
    assert len(server.requests) == 1
    assert kept(server.url("tiny.onnx")).read_bytes() == model()


# --- Two models whose files have one name


@pytest.fixture
def twins(server, places, model):
    """Two entries whose URLs end in the same file name, and what each file holds."""
    contents = {"a": model(seed=1), "b": model(seed=2)}
    server.behaviour.contents = {f"/{name}/model.onnx": c for name, c in contents.items()}
    specs = {
        name: ModelSpec(
            f"model_{name}",
            name,
            64,
            64,
            10,
            files={"onnx": ModelFileSource(server.url(f"{name}/model.onnx"), "model.onnx")},
        )
        for name in contents
    }
    return specs, contents


def test_a_download_of_the_same_name_is_not_taken_for_another_model(twins):
    specs, contents = twins
    for name, spec in specs.items():
        with pytest.raises(ModelNotFoundError):
            resolve(spec, "onnx")
        found = resolve(spec, "onnx", allow_download=True)
        assert (found.origin, found.path.read_bytes()) == ("download", contents[name])
    for name, spec in specs.items():
        found = resolve(spec, "onnx")
        assert (found.origin, found.path.read_bytes()) == ("cache", contents[name])
        assert fetch(spec, "onnx").origin == "cache"


def as_version_0_1(places, spec):
    """Fetch a model and put it where version 0.1 kept it: in the cache by its name."""
    new = fetch(spec, "onnx").path
    old = places["cache"] / new.name
    Lock.path_for(new).rename(Lock.path_for(old))
    new.rename(old)
    new.parent.rmdir()
    return old


@pytest.mark.parametrize("ask", [resolve, fetch])
def test_a_cache_of_version_0_1_is_taken_over_by_its_owner_only(twins, places, server, ask):
    specs, contents = twins
    old = as_version_0_1(places, specs["a"])
    server.requests.clear()
    assert status(specs["a"], "onnx").path == old
    assert status(specs["b"], "onnx").path is None
    with pytest.raises(ModelNotFoundError):
        resolve(specs["b"], "onnx")
    assert old.exists()
    found = ask(specs["a"], "onnx")
    assert (found.origin, found.path.read_bytes()) == ("cache", contents["a"])
    assert found.path == kept(specs["a"].files["onnx"].url)
    assert Lock.read(found.path).sha256 == found.sha256
    assert list(places["cache"].iterdir()) == [found.path.parent]
    assert server.requests == []


def test_a_move_that_was_cut_short_is_completed(twins, places, server):
    specs, _ = twins
    old = as_version_0_1(places, specs["a"])
    new = kept(specs["a"].files["onnx"].url)
    new.parent.mkdir()
    old.rename(new)  # and the power failed
    assert status(specs["a"], "onnx").path == new
    assert resolve(specs["a"], "onnx").path == new
    assert Lock.path_for(new).exists()
    assert list(places["cache"].iterdir()) == [new.parent]


def test_a_cache_of_version_0_1_that_cannot_be_changed_is_used_where_it_is(
    twins, places, monkeypatch
):
    specs, contents = twins
    old = as_version_0_1(places, specs["a"])

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(old), "mkdir", refuse)
    found = resolve(specs["a"], "onnx")
    assert (found.path, found.origin) == (old, "cache")
    old.write_bytes(contents["b"])  # and its lock still counts
    with pytest.raises(ModelCorruptError):
        resolve(specs["a"], "onnx")
    with pytest.raises(ModelNotFoundError):
        resolve(specs["b"], "onnx")


def test_a_file_put_there_by_hand_goes_by_its_name(twins, places, model):
    specs, _ = twins
    for folder in ("EFV2_MODEL_DIR", "cache"):
        path = places[folder] / "model.onnx"
        path.write_bytes(model(seed=7))
        assert [resolve(spec, "onnx").path for spec in specs.values()] == [path, path]
        path.unlink()


def test_a_file_beside_the_catalog_that_names_it_comes_first(places, model, tmp_path):
    folder = tmp_path / "quantised"
    folder.mkdir()
    (folder / "catalog.yaml").write_text(
        "models: {mine: {input: {height: 64, width: 64}, classes: 10, files: {onnx: tiny.onnx}}}"
    )
    spec = Catalog.load(folder / "catalog.yaml")["mine"]
    elsewhere = places["EFV2_MODEL_DIR"] / "tiny.onnx"
    elsewhere.write_bytes(model(seed=1))
    assert resolve(spec, "onnx").path == elsewhere
    (folder / "tiny.onnx").write_bytes(model(seed=2))
    found = resolve(spec, "onnx")
    assert (found.path, found.origin) == (folder / "tiny.onnx", "catalog")


def test_a_lock_of_another_url_is_no_proof(twins, places):
    """A file copied from the cache, with its lock, to where the other model is looked for."""
    specs, contents = twins
    fetched = fetch(specs["a"], "onnx").path
    path = places["EFV2_MODEL_DIR"] / "model.onnx"
    path.write_bytes(contents["a"])
    Lock.path_for(path).write_bytes(Lock.path_for(fetched).read_bytes())
    assert resolve(specs["a"], "onnx").path == path
    with pytest.raises(ModelCorruptError, match=r"was fetched from .*/a/model\.onnx, and model_b"):
        resolve(specs["b"], "onnx")
    assert "was fetched from" in status(specs["b"], "onnx").problem
    Lock.path_for(path).unlink()
    assert resolve(specs["b"], "onnx").path == path


# --- Stopping


def test_a_stopped_download_is_no_reason_for_the_untrained_network(server, places):
    server.behaviour.stall_after = [100]
    source = ModelFileSource(server.url("s0.onnx"), "s0.onnx")
    spec = dataclasses.replace(Catalog.load()["s0"], files={"onnx": source})
    told = []
    with pytest.raises(DownloadStoppedError):
        resolve(
            spec,
            "onnx",
            allow_download=True,
            allow_untrained=True,
            on_progress=lambda done, total: told.append(done),
            should_stop=lambda: told[-1:] == [100],
        )


def test_ctrl_c_ends_the_command_while_its_download_stalls(server, tmp_path):
    catalog = tmp_path / "catalog.yaml"
    entry = {
        "input": {"height": 64, "width": 64},
        "classes": 10,
        "files": {"onnx": server.url("tiny.onnx")},
    }
    catalog.write_text(json.dumps({"models": {"tiny": entry}}))
    server.behaviour.stall_after = [100]
    command = ["efv2", "models", "fetch", "tiny", "--catalog", str(catalog)]
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"sys.argv = {command}; from efv2_ros.cli.main import main; sys.exit(main())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        assert server.asked.wait(60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)  # of the 30 s for which the server stalls
    assert process.returncode not in (0, None)
    assert not server.release.is_set()


def test_the_commands_show_names_and_paths_as_they_are(server, tmp_path, model):
    """Not as markup, of which `[/]` would be an error and `[b]` would not be seen."""
    catalog = tmp_path / "catalog.yaml"
    entry = {
        "size": "[/] [b]",
        "input": {"height": 64, "width": 64},
        "classes": 10,
        "files": {"onnx": server.url("%5Bb%5D.onnx")},
    }
    catalog.write_text(json.dumps({"models": {"odd": entry}}))
    run = CliRunner().invoke
    for command in (["fetch", "odd"], ["list"], ["verify"]):
        done = run(models, [*command, "--catalog", str(catalog)], env={"COLUMNS": "300"})
        assert done.exit_code == 0, done.output + str(done.exception)
        assert "[/] [b]" in done.output
    done = run(models, ["build", "s0", str(tmp_path / "[b].onnx")])
    assert "[b].onnx" in done.output


def test_nothing_is_imported_for_a_download_that_does_not_happen(tmp_path, model):
    path = tmp_path / "own.onnx"
    path.write_bytes(model())
    code = (
        "import sys; from efv2_ros.classify.model import find_model;"
        "from efv2_ros.classify.options import ModelRequest;"
        "print(find_model(ModelRequest(model_path=sys.argv[1])).origin);"
        "print({'efv2_ros.models.download', 'urllib.request', 'ssl', 'onnx'} & set(sys.modules))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == ["model_path", "set()"]


# --- What may be wrong with a place


def test_a_home_folder_that_is_not_there(spec, places, monkeypatch):
    with pytest.raises(ModelError, match="~nouser"):
        resolve(spec, "onnx", model_path=type(places["cache"])("~nouser/m.onnx"))
    monkeypatch.setenv("EFV2_MODEL_DIR", "~nouser/models")
    for attempt in (resolve, lambda *of: resolve(*of, allow_download=True)):
        with pytest.raises(ModelError, match="~nouser"):
            attempt(spec, "onnx")
    assert "~nouser" in status(spec, "onnx").problem


def test_a_folder_that_may_not_be_looked_into(spec, places, monkeypatch):
    long = "x" * 300
    monkeypatch.setenv("EFV2_MODEL_DIR", str(places["EFV2_MODEL_DIR"] / long))
    assert "too long" in status(spec, "onnx").problem


# --- Status


def test_the_status_of_every_file(places, model):
    catalog = Catalog.load()
    (places["cache"] / catalog["s0"].files["onnx"].filename).write_bytes(model())
    (places["board"] / catalog["s1"].files["bin"].filename).write_bytes(b"<html>")
    statuses = {(s.spec.size, s.format): s for s in inventory(catalog)}
    assert len(statuses) == 8
    built = statuses["cards", "onnx"]
    assert (built.origin, built.locked, built.problem) == ("weights", False, None)
    good = statuses["s0", "onnx"]
    assert (good.origin, good.size, good.locked, good.problem) == (
        "cache",
        len(model()),
        False,
        None,
    )
    assert good.sha256 == hashlib.sha256(model()).hexdigest()
    bad = statuses["s1", "bin"]
    assert (bad.origin, bad.sha256) == ("board", None)
    assert "is a web page" in bad.problem
    for key in statuses.keys() - {("s0", "onnx"), ("s1", "bin"), ("cards", "onnx")}:
        assert (statuses[key].path, statuses[key].problem) == (None, None)


def test_the_status_tells_of_the_lock(spec, fetched):
    assert status(spec, "onnx").locked
    assert not status(spec, "onnx", model_path=fetched.parent / "absent").locked


# --- A network of weights that a catalog names


@pytest.fixture
def weighted(tmp_path, places):
    """A catalog's model that is built from weights of seven classes."""
    pytest.importorskip("safetensors")
    from safetensors.numpy import save_file

    from efv2_ros.models.efficientformerv2.builder import seeded_state

    path = tmp_path / "mine" / "w.safetensors"
    path.parent.mkdir()
    save_file(dict(seeded_state("s0", classes=7).tensors), path)
    catalog = path.parent / "catalog.yaml"
    catalog.write_text(
        "models:\n  mine:\n    input: {height: 224, width: 224}\n    classes: 7\n"
        "    weights: w.safetensors\n"
    )
    return Catalog.load(catalog)["mine"]


def test_weights_make_a_model_once(weighted):
    found = resolve(weighted, "onnx")
    assert (found.origin, found.untrained) == ("weights", False)
    onnx.checker.check_model(onnx.load(found.path))
    before = found.path.stat().st_mtime_ns
    assert resolve(weighted, "onnx") == found
    assert found.path.stat().st_mtime_ns == before


def test_other_weights_make_another_model(weighted, tmp_path):
    from safetensors.numpy import save_file

    from efv2_ros.models.efficientformerv2.builder import seeded_state

    first = resolve(weighted, "onnx").path
    save_file(dict(seeded_state("s0", 1, classes=7).tensors), weighted.weights)
    assert resolve(weighted, "onnx").path != first


def test_weights_are_found_and_listed_like_files(weighted):
    assert store.find(weighted, "onnx") is None  # `resolve` would build it
    listed = status(weighted, "onnx")
    assert (listed.origin, listed.problem) == ("weights", None)
    assert listed.path == resolve(weighted, "onnx").path
    with pytest.raises(ModelNotFoundError):
        resolve(weighted, "bin")


def test_weights_of_other_classes_than_the_catalog_says_are_refused(weighted):
    wrong = dataclasses.replace(weighted, classes=8)
    says = "224x224 pixels and 7 classes, and the catalog says that mine has 224x224 pixels and 8"
    with pytest.raises(ModelError, match=says):
        resolve(wrong, "onnx")
    assert says in status(wrong, "onnx").problem


def test_damaged_weights_are_refused(weighted):
    weighted.weights.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="is not a safetensors file of weights"):
        resolve(weighted, "onnx")


# --- The untrained network


@pytest.fixture
def untrained(places):
    return resolve(Catalog.load()["s0"], "onnx", allow_untrained=True)


def test_the_untrained_network_says_so_wherever_it_is(untrained, tmp_path):
    assert (untrained.origin, untrained.untrained) == ("untrained", True)
    onnx.checker.check_model(onnx.load(untrained.path))
    copy = tmp_path / "looks_trained.onnx"
    copy.write_bytes(untrained.path.read_bytes())
    found = resolve(untrained.spec, "onnx", model_path=copy)
    assert (found.origin, found.untrained) == ("model_path", True)


def test_the_untrained_network_is_built_once_for_each_builder(untrained, monkeypatch, tmp_path):
    built = []
    write = built_models.network.write
    monkeypatch.setattr(
        built_models.network, "write", lambda path, state: (built.append(path), write(path, state))
    )
    assert resolve(untrained.spec, "onnx", allow_untrained=True) == untrained
    assert built == []
    changed = tmp_path / "efficientformerv2.py"
    changed.write_text("# another builder", encoding="utf-8")
    monkeypatch.setattr(built_models.network, "__file__", str(changed))
    assert resolve(untrained.spec, "onnx", allow_untrained=True).path == built[0]
    assert built[0] != untrained.path


def test_a_trained_model_comes_first(untrained, places, server, model):
    source = ModelFileSource(server.url("s0.onnx"), "s0.onnx")
    spec = dataclasses.replace(untrained.spec, files={"onnx": source})
    found = resolve(spec, "onnx", allow_download=True, allow_untrained=True)
    assert (found.origin, found.untrained) == ("download", False)


@pytest.mark.parametrize("fault", [{"statuses": [404]}, {"content": b"<html>"}])
def test_the_untrained_network_serves_when_a_download_fails(untrained, server, fault, caplog):
    for name, value in fault.items():
        setattr(server.behaviour, name, value)
    source = ModelFileSource(server.url("s0.onnx"), "s0.onnx")
    spec = dataclasses.replace(untrained.spec, files={"onnx": source})
    with pytest.raises(ModelError):
        resolve(spec, "onnx", allow_download=True)
    server.behaviour.statuses = [404] if "statuses" in fault else []
    found = resolve(spec, "onnx", allow_download=True, allow_untrained=True)
    assert (found.origin, found.untrained) == ("untrained", True)
    assert "s0.onnx" in caplog.text


@pytest.mark.parametrize(
    ("format", "changes"), [("bin", {}), ("onnx", {"classes": 5}), ("onnx", {"name": "other"})]
)
def test_only_efficientformerv2_has_an_untrained_network(places, format, changes):
    spec = dataclasses.replace(Catalog.load()["s0"], **changes)
    with pytest.raises(ModelNotFoundError):
        resolve(spec, format, allow_untrained=True)


def test_the_untrained_network_needs_onnx(places, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r"without the onnx package: pip install onnx"):
        resolve(Catalog.load()["s0"], "onnx", allow_untrained=True)


def test_the_untrained_network_needs_room(places):
    (cache_dir() / "untrained").write_text("in the way")
    with pytest.raises(ModelError, match=r"cannot be stored in .*untrained"):
        resolve(Catalog.load()["s0"], "onnx", allow_untrained=True)
