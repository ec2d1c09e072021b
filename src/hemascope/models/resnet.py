"""ResNet-18, as in He et al., "Deep Residual Learning for Image Recognition", CVPR 2016."""

from __future__ import annotations

from torch import Tensor, nn

from hemascope.models.blocks import ConvNormAct, StochasticDepth
from hemascope.models.network import CellNetwork

# (channels, stride of the first block); two blocks each.
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, projected by a 1×1 convolution where shapes differ."""

    def __init__(self, in_channels: int, channels: int, stride: int, drop_path_rate: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            ConvNormAct(in_channels, channels, stride=stride, act=nn.ReLU),
            ConvNormAct(channels, channels, act=None),
        )
        self.drop = StochasticDepth(drop_path_rate)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = ConvNormAct(in_channels, channels, kernel=1, stride=stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """(N,in,h,w) → (N,out,ceil(h/stride),ceil(w/stride))."""
        total = self.shortcut(x) + self.drop(self.branch(x))
        return nn.functional.relu(total, inplace=True)


class ResNet18(CellNetwork):
    """(N,3,S,S) → logits (N,C); feature maps are S/32 a side."""

    def __init__(self, num_classes: int, drop_rate: float, drop_path_rate: float) -> None:
        layers: list[nn.Module] = [
            ConvNormAct(3, 64, kernel=7, stride=2, act=nn.ReLU),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        channels, num_blocks = 64, 2 * len(STAGES)
        for width, stride in STAGES:
            for block_stride in (stride, 1):
                rate = drop_path_rate * (len(layers) - 2) / (num_blocks - 1)
                layers.append(BasicBlock(channels, width, block_stride, rate))
                channels = width
        super().__init__(nn.Sequential(*layers), channels, num_classes, drop_rate)
