"""CellNetwork: what every architecture here has in common, from images to logits."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from hemascope.models.gradients import spatial_mean

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Outputs(NamedTuple):
    """logits (N,C), features (N,F), class_map (N,C,h,w)."""

    logits: Tensor
    features: Tensor
    class_map: Tensor


class CellNetwork(nn.Module):
    """Images (N,3,S,S), RGB in 0..1 → feature maps (N,K,h,w) → mean (N,K) → logits (N,C).

    Normalisation by ImageNet's mean and deviation is the first layer, so that nothing outside
    has to know of it. Since the logits are linear in the mean of the feature maps, the class
    activation map (Zhou et al., CVPR 2016) is the same linear layer at each place, and equals
    Grad-CAM at the last convolution (Selvaraju et al., ICCV 2017) up to its scale and ReLU.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, maps: nn.Module, num_features: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.maps = maps
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(num_features, num_classes)
        self.apply(_initialise)

    def feature_maps(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → (N,K,h,w)."""
        return cast(Tensor, self.maps((images - self.mean) / self.std))

    def forward(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → logits (N,C)."""
        features = spatial_mean(self.feature_maps(images)).flatten(1)
        return cast(Tensor, self.head(self.dropout(features)))

    def outputs(self, images: Tensor) -> Outputs:
        """Logits with the features behind them and the class activation maps. For evaluation.

        `class_map[n, c].mean() + bias[c]` is `logits[n, c]`.
        """
        maps = self.feature_maps(images)
        features = maps.mean((2, 3))
        class_map = nn.functional.conv2d(maps, self.head.weight[:, :, None, None])
        return Outputs(self.head(features), features, class_map)


def _initialise(module: nn.Module) -> None:
    """He et al. (ICCV 2015) for convolutions; a small head, so that training starts unsure."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        bound = 1.0 / math.sqrt(module.in_features)
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)
