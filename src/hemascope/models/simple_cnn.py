"""SimpleCNN: the study's plain baseline, four convolutions and a hidden layer."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from hemascope.models.network import CellNetwork, NetworkOutputs, initialise, style_statistics

WIDTHS = (32, 64, 128, 256)
HIDDEN = 512
GRID = 14  # what 224 pixels leave after four halvings


class SimpleCNN(CellNetwork):
    """(N,3,S,S) → 256 maps, 14×14 → hidden layer (N,512) → logits (N,C).

    Maps of another size than 14×14 are resampled to it, so that any input size will do.
    """

    def __init__(self, num_classes: int, drop_rate: float) -> None:
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            # A bias before batch normalisation does nothing, but the study's count has it.
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after)]
            layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        super().__init__(nn.Sequential(*layers), HIDDEN, num_classes, drop_rate)
        self.hidden = nn.Linear(WIDTHS[-1] * GRID * GRID, HIDDEN).apply(initialise)

    map_offset = 0.0  # its pooling looks around the middle of what it takes together

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor]:
        early, maps = super().stages(images)
        if maps.shape[2] != GRID:
            maps = nn.functional.interpolate(maps, size=(GRID, GRID), mode="bilinear")
        return early, maps

    def embed(self, images: Tensor) -> Tensor:
        features = nn.functional.relu(self.hidden(self.feature_maps(images).flatten(1)))
        return cast(Tensor, self.dropout(features))

    def outputs(self, images: Tensor) -> NetworkOutputs:
        """As for every network; the class map is activation × gradient, summed over channels.

        The hidden layer stands between the maps and the logits, so the map is taken through it:
        the logits are piecewise linear in the feature maps, and this is their exact derivative.
        """
        early, maps = self.stages(images)  # (N,T,s,s), (N,K,14,14)
        features = nn.functional.relu(self.hidden(maps.flatten(1)))  # (N,512)
        active = (features > 0).to(maps.dtype)
        class_weights = active[:, None, :] * self.head.weight[None]  # (N,C,512)
        gradients = torch.matmul(class_weights, self.hidden.weight)  # (N,C,K·14·14)
        gradients = gradients.reshape(*gradients.shape[:2], *maps.shape[1:])  # (N,C,K,14,14)
        class_map = (gradients * maps[:, None]).sum(2) * (GRID * GRID)
        logits = self.head(features)
        return NetworkOutputs(logits, features, class_map, style_statistics(early), logits[:, None])
