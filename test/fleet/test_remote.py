"""Bags at URLs: a real S3 server, and a real web server."""

import functools
import http.server
import threading
import uuid

import numpy as np
import pytest
from bag_maker import make
from click.testing import CliRunner
from tiny_models import projection

pytest.importorskip("fsspec")

import fsspec

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.errors import BagError
from efv2_ros.cli.main import main
from efv2_ros.fleet.remote import on_this_machine


@pytest.fixture(scope="module")
def s3_server():
    """The address of moto's S3 server."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """A bucket of the test's own; fsspec finds the server as people tell it to."""
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def web(tmp_path):
    """A web server that lists no folders, over `tmp_path / "www"`."""
    root = tmp_path / "www"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def list_directory(self, path):
            self.send_error(403)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(root))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def images(path):
    with Bag(path) as bag:
        assert bag.problems == []
        return [np.array(each.data) for each in bag.images(bag.image_topic())]


def assert_same(path, original):
    for one, two in zip(images(path), images(original), strict=True):
        np.testing.assert_array_equal(one, two)


def upload(bag, url):
    fsspec.filesystem("s3").put(str(bag), f"{url}/{bag.name}", recursive=True)
    return f"{url}/{bag.name}"


@pytest.mark.parametrize(
    ("storage", "compression"), [("mcap", "none"), ("sqlite3", "message"), ("mcap", "file")]
)
def test_a_bag_in_s3(tmp_path, bucket, storage, compression):
    bag = make(tmp_path / "bag", storage=storage, compression=compression)
    url = upload(bag, f"{bucket}/deep/er")
    with on_this_machine(url) as path:
        assert_same(path, bag)
    assert not path.exists()
    (file,) = [each for each in bag.iterdir() if each.name != "metadata.yaml"]
    with on_this_machine(f"{url}/{file.name}") as path:
        assert path.name == file.name
        assert_same(path, bag)


def test_a_bag_in_s3_without_a_description(tmp_path, bucket):
    bag = make(tmp_path / "bag")
    url = upload(bag, bucket)
    fsspec.filesystem("s3").rm(f"{url}/metadata.yaml")
    with on_this_machine(url + "/") as path:
        assert_same(path, bag)


def test_a_bag_on_the_web(web):
    root, url = web
    bag = make(root / "bag")
    with on_this_machine(f"{url}/bag") as path:
        assert_same(path, bag)
    (file,) = bag.glob("*.mcap")
    with on_this_machine(f"{url}/bag/{file.name}") as path:
        assert_same(path, bag)


def test_a_bag_that_is_here_is_not_copied(tmp_path):
    bag = make(tmp_path / "bag")
    with on_this_machine(str(bag)) as path:
        assert path == bag
    assert bag.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{web}/missing.mcap", "missing.mcap"),
        ("{web}/missing", "cannot read the bag"),
        ("{s3}/missing", "no bag at .*missing|cannot read the bag .*missing"),
        ("{s3}-none/missing.mcap", "cannot read the bag"),
        ("nonsense://x/y.mcap", "cannot read the bag nonsense"),
        ("http://127.0.0.1:1/x.mcap", "cannot read the bag"),
    ],
)
def test_what_cannot_be_had(web, bucket, url, message):
    with (
        pytest.raises(BagError, match=message),
        on_this_machine(url.format(web=web[1], s3=bucket)),
    ):
        pass


def test_fleets_and_single_bags_are_replayed_from_urls(tmp_path, bucket, web, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = projection(tmp_path / "model.onnx")
    root, address = web
    urls = [upload(make(tmp_path / "long", 40), bucket), f"{address}/short"]
    make(root / "short", 3)
    (tmp_path / "list.txt").write_text("\n".join([*urls, f"{bucket}/missing"]))

    def efv2(*arguments):
        command = ["replay", *arguments, "--model", str(model), "--threads", "1"]
        return CliRunner().invoke(main, command)

    result = efv2("list.txt", "--results", "out", "--workers", "2", "--chunk", "10")
    assert result.exit_code == 1
    assert "3 of 3 bags, 43 images: 43 classified" in result.output
    assert f"failed: {bucket}/missing: " in result.output
    for url, name in zip(urls, ("long", "short"), strict=True):
        single = efv2(url, "--jsonl", "-")
        assert single.exit_code == 0, single.output
        assert (tmp_path / "out" / f"{name}.jsonl").read_bytes() == single.stdout_bytes
