"""Weights to start from: files, the Hugging Face hub, and what is said when they cannot be had."""

import pytest

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

from http_server import serving
from safetensors.numpy import save

from efv2_ros.models.download import DownloadStoppedError
from efv2_ros.models.efficientformerv2.builder import seeded_state
from efv2_ros.training.errors import TrainingError
from efv2_ros.training.weights import find_weights

REPOSITORY = "timm/efficientformerv2_s0.snap_dist_in1k"


@pytest.fixture(scope="module")
def content():
    return save(dict(seeded_state("s0").tensors))


@pytest.fixture
def hub(monkeypatch, content):
    """A mirror of the hub on this machine."""
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.behaviour.content = content
        monkeypatch.setenv("HF_ENDPOINT", server.base + "/")
        yield server


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def test_from_scratch():
    assert find_weights("none", "s0") == (None, "starting from random weights")


def test_a_file(tmp_path):
    path = tmp_path / "mine.safetensors"
    path.touch()
    assert find_weights(str(path), "s0") == (path, f"starting from {path}")


@pytest.mark.parametrize("weights", ["imagenet", "auto", REPOSITORY])
def test_the_hub_is_asked_once(hub, weights, content):
    received = []
    path, said = find_weights(weights, "s0", on_progress=lambda done, total: received.append(done))
    assert said == f"starting from {REPOSITORY}"
    assert path.read_bytes() == content
    assert received[-1] == len(content)
    assert find_weights(weights, "s0") == (path, said)
    assert len(hub.requests) == 1


def test_weights_of_another_size_are_refused(hub):
    with pytest.raises(
        TrainingError, match="holds efficientformerv2_s0, not efficientformerv2_s1"
    ):
        find_weights("imagenet", "s1")


def test_without_the_hub_auto_begins_from_the_cards(no_hub):
    path, said = find_weights("auto", "s0")
    assert (path, said.split(", since ")[0]) == find_weights("cards", "s0")
    assert path.name == "efficientformerv2_s0_cards.safetensors"
    assert path.is_file()
    assert f", since {REPOSITORY} cannot be had: " in said


def test_without_the_hub_auto_begins_another_size_from_scratch(no_hub):
    path, said = find_weights("auto", "s1")
    assert path is None
    assert said.startswith("starting from random weights, since timm/efficientformerv2_s1.")


def test_without_the_hub_what_was_asked_for_is_an_error(no_hub):
    with pytest.raises(TrainingError, match=r"cannot be had .* give a file, or `--weights none`"):
        find_weights("imagenet", "s0")


@pytest.mark.parametrize("weights", ["mine.safetensors", "imagnet", "./a/b", "a/b/c"])
def test_what_is_neither_file_nor_repository_is_an_error(weights):
    with pytest.raises(TrainingError, match=r"there is no file .* it is no repository"):
        find_weights(weights, "s0")


def test_a_stopped_download_is_no_reason_to_begin_from_scratch(hub):
    with pytest.raises(DownloadStoppedError):
        find_weights("auto", "s0", should_stop=lambda: True)
