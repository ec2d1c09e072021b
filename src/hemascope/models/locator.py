"""LocatorNetwork: a field → heat maps of the cells' centres, and their boxes there.

Cells are points with a size, as in Zhou, Wang and Krähenbühl, "Objects as points", 2019
(arXiv:1904.07850): a map per kind whose peaks are centres, and four maps that hold a box at each
place. Plain 3×3 convolutions, since processors compute these faster than depthwise ones.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from hemascope.models.blocks import ConvNormAct

STRIDE = 4
TYPICAL = 32.0  # pixels: the side of a box whose logarithm is 0
RARE = 0.02  # what the heat maps hold at first: nearly every place is no centre


class LocatorBlock(nn.Module):
    """Two 3×3 convolutions and their input added. He et al., CVPR 2016."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            ConvNormAct(channels, channels, act=nn.ReLU),
            ConvNormAct(channels, channels, act=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N,K,h,w) → the same shape."""
        return torch.relu(x + self.branch(x))


class LocatorNetwork(nn.Module):
    """Images (N,3,h,w) in 0..1, sides multiples of 16 → maps (N,kinds+4,h/4,w/4).

    The first maps are the logits of the centres, one per kind. The last four are the box: how far
    its centre lies from the middle of the place, x and y in steps of the map, and the logarithms
    of its width and height over TYPICAL pixels.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, kinds: int = 3, width: int = 32) -> None:
        super().__init__()
        self.kinds = kinds
        at8, at16 = 2 * width, 3 * width
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.7))
        self.register_buffer("deviation", torch.full((1, 3, 1, 1), 0.2))
        self.stem = nn.Sequential(
            ConvNormAct(3, width // 2, stride=2, act=nn.ReLU),
            ConvNormAct(width // 2, width, stride=2, act=nn.ReLU),
        )
        self.at4 = LocatorBlock(width)
        self.at8 = nn.Sequential(
            ConvNormAct(width, at8, stride=2, act=nn.ReLU), LocatorBlock(at8), LocatorBlock(at8)
        )
        self.at16 = nn.Sequential(
            ConvNormAct(at8, at16, stride=2, act=nn.ReLU), LocatorBlock(at16), LocatorBlock(at16)
        )
        self.up16 = ConvNormAct(at16, at8, kernel=1, act=nn.ReLU)
        self.merge8 = ConvNormAct(at8, at8, act=nn.ReLU)
        self.up8 = ConvNormAct(at8, width, kernel=1, act=nn.ReLU)
        self.merge4 = LocatorBlock(width)
        self.head = ConvNormAct(width, 2 * width, act=nn.ReLU)
        self.out = nn.Conv2d(2 * width, kinds + 4, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.out.bias))
        with torch.no_grad():
            cast(Tensor, self.out.bias)[:kinds] = math.log(RARE / (1 - RARE))

    def forward(self, images: Tensor) -> Tensor:
        """(N,3,h,w) → (N,kinds+4,h/4,w/4)."""
        at4 = self.at4(self.stem((images - self.mean) / self.deviation))  # (N,W,h/4,w/4)
        at8 = self.at8(at4)  # (N,2W,h/8,w/8)
        at16 = self.at16(at8)  # (N,3W,h/16,w/16)
        at8 = self.merge8(at8 + _double(self.up16(at16)))
        at4 = self.merge4(at4 + _double(self.up8(at8)))
        return cast(Tensor, self.out(self.head(at4)))


def _double(x: Tensor) -> Tensor:
    """(N,K,h,w) → (N,K,2h,2w), each value four times."""
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
