"""timm's network for training: the BPU's pixels, other sides, weights in and out."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

import onnxruntime
import torch

from efv2_ros.models.catalog import IMAGENET_MEAN, IMAGENET_SCALE
from efv2_ros.models.efficientformerv2.builder import build, load_state
from efv2_ros.runtimes.base import ImageInput
from efv2_ros.runtimes.onnx import preprocessing_model
from efv2_ros.training.errors import TrainingError
from efv2_ros.training.network import Network, load_weights, save_weights

pytestmark = pytest.mark.training

IMAGE = ImageInput(224, 224, "full", IMAGENET_MEAN, IMAGENET_SCALE)


def make(size="s0", classes=7, seed=0):
    """A network whose attention biases and layer scales are not those of a beginner."""
    torch.manual_seed(seed)
    network = Network(size, classes, IMAGE).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "attention_biases" in name or name.endswith("gamma"):
                parameter.uniform_(0.2, 1.0)
    return network


def nv12(side=224, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side * 3 // 2, side), np.uint8)


def run(model, name, value):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value})[0]


def logits(network, images):
    with torch.no_grad():
        return network(images).numpy()


@pytest.mark.parametrize("size", ["s0", "s1"])
def test_training_and_the_built_network_see_and_say_the_same(size, tmp_path):
    network, pixels = make(size), nv12()
    images = network.images(torch.from_numpy(pixels)[None])
    expected = run(preprocessing_model(IMAGE), "nv12", pixels)
    np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=1e-5)
    save_weights(network, tmp_path / "w.safetensors", {})
    model = build(load_state(tmp_path / "w.safetensors", size)).SerializeToString()
    found = run(model, "data", expected)
    np.testing.assert_allclose(found, logits(network, images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", [64, 128, 160])
def test_a_smaller_side_has_interpolated_biases(side):
    """A bias of distance d on the small map is the one of distance d * 224 / side."""
    network = make()
    network.resize(side)
    for module in network.network.modules():
        if not hasattr(module, "attention_bias_idxs"):
            continue
        full = module.parametrizations.attention_biases.original
        rows = round(full.shape[1] ** 0.5)
        few = rows * side // 224
        table = full.detach().reshape(-1, rows, rows).numpy()
        places = np.arange(few) * rows / few
        along = np.stack([np.interp(places, range(rows), row) for row in table.reshape(-1, rows)])
        along = along.reshape(-1, rows, few).transpose(0, 2, 1)
        both = np.stack([np.interp(places, range(rows), row) for row in along.reshape(-1, rows)])
        expected = both.reshape(-1, few, few).transpose(0, 2, 1).reshape(-1, few * few)
        np.testing.assert_allclose(
            module.attention_biases.detach().numpy(), expected, rtol=0, atol=1e-5
        )
    images = network.images(torch.from_numpy(nv12(side))[None])
    assert logits(network, images).shape == (1, 7)


def test_coming_back_to_the_full_side_changes_nothing():
    network = make()
    images = network.images(torch.from_numpy(nv12())[None])
    before = logits(network, images)
    network.resize(128)
    network.resize(224)
    assert np.array_equal(logits(network, images), before)


def test_weights_come_back_and_a_head_for_other_classes_is_new(tmp_path):
    path = tmp_path / "w.safetensors"
    network = make()
    save_weights(network, path, {})
    images = network.images(torch.from_numpy(nv12())[None])
    same, other = make(seed=1), make(classes=5, seed=1)
    assert not load_weights(same, path)
    assert np.array_equal(logits(same, images), logits(network, images))
    head = other.network.head.weight.clone()
    assert load_weights(other, path)
    assert torch.equal(other.network.head.weight, head)
    assert torch.equal(other.network.norm.weight, network.network.norm.weight)


def test_weights_of_another_size_are_refused(tmp_path):
    save_weights(make("s1"), tmp_path / "w.safetensors", {})
    with pytest.raises(TrainingError, match="holds the weights of another network"):
        load_weights(make("s0"), tmp_path / "w.safetensors")


def test_a_file_that_is_none_of_weights_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(TrainingError, match="not a safetensors file"):
        load_weights(make(), tmp_path / "w.safetensors")
