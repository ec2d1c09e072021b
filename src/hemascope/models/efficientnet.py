"""The EfficientNets of the study: MBConv stages from a table, then a mean and a linear layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hemascope.models.blocks import ConvNormAct, MBConv
from hemascope.models.network import CellNetwork


@dataclass(frozen=True)
class Stage:
    """`repeats` MBConv blocks of one width; the first has the stride."""

    channels: int
    repeats: int
    stride: int
    expansion: int = 6
    kernel: int = 3


@dataclass(frozen=True)
class Design:
    """A stem of stride 2, the stages, and a 1×1 convolution to `head` channels (0: none)."""

    stem: int
    stages: tuple[Stage, ...]
    head: int
    squeeze_excite: bool = True
    map_offset: float = CellNetwork.map_offset
    act: type[nn.Module] = nn.SiLU


# The only reading of the study's text that has the 1,840,228 parameters it reports.
DEEP = Design(
    stem=32,
    stages=(
        Stage(16, repeats=1, stride=1, expansion=1),
        Stage(24, repeats=2, stride=2),
        Stage(40, repeats=3, stride=2),
        Stage(80, repeats=4, stride=2),
        Stage(112, repeats=3, stride=1),
    ),
    head=320,
)

# The study's table as printed.
DEEP_PRINTED = Design(
    stem=32,
    stages=(
        Stage(16, repeats=1, stride=1, expansion=1),
        Stage(24, repeats=2, stride=2),
        Stage(40, repeats=2, stride=2),
        Stage(80, repeats=3, stride=2),
    ),
    head=0,
)

# "Three MBConv stages" of 0.55 M parameters; the widths are ours.
LITE = Design(
    stem=32,
    stages=(
        Stage(16, repeats=1, stride=2),
        Stage(40, repeats=2, stride=2),
        Stage(112, repeats=2, stride=2),
    ),
    head=0,
)

# EfficientNet-Lite0, of which there are ImageNet weights, trained with padding at the right and
# below only, so that their kernels lean to the left and up. Liu, "Higher accuracy on vision models
# with EfficientNet-Lite", TensorFlow blog, 2020.
LITE0 = Design(
    stem=32,
    stages=(
        Stage(16, repeats=1, stride=1, expansion=1),
        Stage(24, repeats=2, stride=2),
        Stage(40, repeats=2, stride=2, kernel=5),
        Stage(80, repeats=3, stride=2),
        Stage(112, repeats=3, stride=1, kernel=5),
        Stage(192, repeats=4, stride=2, kernel=5),
        Stage(320, repeats=1, stride=1),
    ),
    head=1280,
    squeeze_excite=False,
    map_offset=1.0,
    act=nn.ReLU6,
)

# The study's stages out of EfficientNet-Lite0's blocks: those up to 112 channels, which may begin
# with ImageNet's weights, then the study's head convolution. ReLU6 and no squeeze-and-excitation,
# so that eight bits are enough for it.
MINI = Design(
    stem=LITE0.stem,
    stages=LITE0.stages[:5],
    head=DEEP.head,
    squeeze_excite=False,
    map_offset=1.0,
    act=nn.ReLU6,
)


class EfficientNet(CellNetwork):
    """(N,3,S,S) → logits (N,C); feature maps are S/16 a side, and S/32 of LITE0.

    A design without squeeze-and-excitation has none either way. The rate of stochastic depth
    rises linearly over the blocks, from 0 to `drop_path_rate`.
    """

    def __init__(
        self,
        design: Design,
        num_classes: int,
        squeeze_excite: bool,
        drop_rate: float,
        drop_path_rate: float,
    ) -> None:
        layers: list[nn.Module] = [ConvNormAct(3, design.stem, stride=2, act=design.act)]
        channels = design.stem
        num_blocks = sum(stage.repeats for stage in design.stages)
        for stage in design.stages:
            for repeat in range(stage.repeats):
                position = len(layers) - 1
                layers.append(
                    MBConv(
                        channels,
                        stage.channels,
                        stage.stride if repeat == 0 else 1,
                        stage.expansion,
                        squeeze_excite and design.squeeze_excite,
                        drop_path_rate * position / (num_blocks - 1),
                        stage.kernel,
                        design.act,
                    )
                )
                channels = stage.channels
        if design.head:
            layers.append(ConvNormAct(channels, design.head, kernel=1, act=design.act))
            channels = design.head
        super().__init__(nn.Sequential(*layers), channels, num_classes, drop_rate)
        self.map_offset = design.map_offset
