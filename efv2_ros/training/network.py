"""timm's EfficientFormerV2 for training: any number of classes, any side, the BPU's pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load_file
from timm.models.efficientformer_v2 import Attention2d, Attention2dDownsample
from torch import Tensor, nn
from torch.nn.utils import parametrize

from efv2_ros.files import open_atomic_binary
from efv2_ros.models.efficientformerv2.graph import IMAGE_SIDE, Size
from efv2_ros.runtimes.base import ImageInput
from efv2_ros.runtimes.onnx import rgb_from_yuv
from efv2_ros.training.errors import TrainingError

SIDE_STEP = 32
"""Sides of photos are multiples of it: the last feature map is this much smaller."""

_BIASES = "attention_biases"
_HEADS = re.compile(r"head(_dist)?\.(weight|bias)")


class _Resampled(nn.Module):
    """The attention biases for a feature map of another side, by bilinear interpolation.

    There is a bias for each distance, in rows and columns of the feature map. On a map of half the
    side, a distance of one row is what two rows were.

    Args:
        side: Rows and columns of the map at 224 pixels, for which the biases are stored.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.resize(side)

    def resize(self, side: int) -> None:
        """Give biases for a map of this many rows and columns from now on."""
        places = np.arange(side) * (self.side / side)
        below = np.floor(places).astype(int)
        above = np.minimum(below + 1, self.side - 1)
        weights = np.zeros((side, self.side), np.float32)
        np.add.at(weights, (np.arange(side), below), 1 - (places - below))
        np.add.at(weights, (np.arange(side), above), places - below)
        self.weights = torch.from_numpy(weights)
        self.is_same = side == self.side

    def forward(self, biases: Tensor) -> Tensor:
        if self.is_same:
            return biases
        weights = self.weights.to(biases)
        table = biases.unflatten(1, (self.side, self.side))
        return (weights @ table @ weights.T).flatten(1)


class Network(nn.Module):
    """The network with the BPU's preprocessing: NV12 in, logits out.

    Args:
        size: Size of the network.
        classes: Number of classes.
        image: The input at 224 pixels.
        drop_path: Probability with which a block of the last stage is left out in training.
    """

    def __init__(
        self, size: Size, classes: int, image: ImageInput, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.network: nn.Module = timm.create_model(
            f"efficientformerv2_{size}", num_classes=classes, drop_path_rate=drop_path
        )
        for module in _attentions(self.network):
            parametrize.register_parametrization(module, _BIASES, _Resampled(module.resolution[0]))
        matrix, offset = rgb_from_yuv(image)
        self.register_buffer("matrix", torch.from_numpy(matrix).float(), persistent=False)
        self.register_buffer("offset", torch.from_numpy(offset).float(), persistent=False)
        self.side = IMAGE_SIDE

    def resize(self, side: int) -> None:
        """Take photos of this side, in pixels, from now on; a multiple of 32, at most 224."""
        if side == self.side:
            return
        self.side = side
        for module in _attentions(self.network):
            resampled = module.parametrizations[_BIASES][0]
            rows = resampled.side * side // IMAGE_SIDE
            resampled.resize(rows)
            module.resolution, module.N = (rows, rows), rows * rows
            if isinstance(module, Attention2dDownsample):
                half = -(-rows // 2)
                module.resolution2, module.N2 = (half, half), half * half
            device = module.attention_bias_idxs.device
            module.attention_bias_idxs = module._compute_attention_bias_idxs(device)
            module.attention_bias_cache = {}

    def images(self, nv12: Tensor) -> Tensor:
        """Convert NV12 to normalised RGB as the BPU does.

        Args:
            nv12: uint8 of shape (n, side * 3 // 2, side).

        Returns:
            float32 of shape (n, 3, side, side).
        """
        count, _, side = nv12.shape
        planes = nv12.float()
        luma = planes[:, None, :side]
        chroma = planes[:, side:].reshape(count, side // 2, side // 2, 2)
        samples = torch.einsum("nhwc,rc->nrhw", chroma, self.matrix[:, 1:])
        samples = samples.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = self.matrix[:, 0].view(3, 1, 1)
        rgb = samples + luma * y + self.offset.view(3, 1, 1)
        return rgb.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (n, classes) of normalised images (n, 3, side, side)."""
        logits: Tensor = self.network(images)
        return logits


def _attentions(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if isinstance(module, Attention2d | Attention2dDownsample):
            yield module


# --- Weights


def save_weights(network: Network, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights by timm's names, float32, for 224 pixels.

    Args:
        network: The network.
        path: The safetensors file, replaced as a whole.
        metadata: Texts to store with them.

    Raises:
        FileWriteError: The file cannot be written.
    """
    tensors = {
        _timm_name(name): np.ascontiguousarray(tensor.float().cpu().numpy())
        for name, tensor in network.network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with open_atomic_binary(path) as file:
        file.write(save(tensors, dict(metadata)))


def load_weights(network: Network, path: Path) -> bool:
    """Start from weights; a head for another number of classes is left as it is.

    Args:
        network: The network to change.
        path: A safetensors file with timm's names.

    Returns:
        Whether the head is new.

    Raises:
        TrainingError: The file cannot be read, or holds the weights of another network.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} is not a safetensors file of weights: {error}") from error
    return _copy(network.network, found, path)


def _copy(network: nn.Module, found: Mapping[str, Tensor], source: Path) -> bool:
    state = network.state_dict()
    names = {_timm_name(name): name for name in state if not name.endswith("num_batches_tracked")}
    wrong = [
        name
        for name in names
        if name not in found
        or (found[name].shape != state[names[name]].shape and not _HEADS.fullmatch(name))
    ]
    if wrong:
        raise TrainingError(
            f"{source} holds the weights of another network: {wrong[0]} is "
            + (f"{list(found[wrong[0]].shape)}" if wrong[0] in found else "not among them")
        )
    exchanged = False
    for name, own in names.items():
        if found[name].shape == state[own].shape:
            state[own] = found[name].to(state[own].dtype)
        else:
            exchanged = True
    network.load_state_dict(state)
    return exchanged


def _timm_name(name: str) -> str:
    """A tensor's name in timm's networks, in which attention biases are not parametrised."""
    return name.replace(f"parametrizations.{_BIASES}.original", _BIASES)
