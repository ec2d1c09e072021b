"""The parts that networks are built of."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from hemascope.models.gradients import depthwise, spatial_mean


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalisation, activation (None: linear).

    (N,in,h,w) → (N,out,ceil(h/stride),ceil(w/stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Module] | None = nn.SiLU,
    ) -> None:
        convolution = Depthwise if groups > 1 else nn.Conv2d
        padding = kernel // 2
        layers: list[nn.Module] = [
            convolution(
                in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False
            ),
            nn.BatchNorm2d(out_channels),
        ]
        if act is not None:
            layers.append(act(inplace=True))
        super().__init__(*layers)


class Depthwise(nn.Conv2d):
    """A depthwise convolution, with a gradient of its own under autocast on a processor."""

    def forward(self, x: Tensor) -> Tensor:
        """(N,K,h,w) → (N,K,ceil(h/stride),ceil(w/stride))."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return depthwise(x, self.weight.to(x.dtype), self.stride[0])


class SqueezeExcite(nn.Module):
    """Channel attention: (N,K,h,w) times a gate (N,K,1,1) computed from its spatial mean.

    Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        squeezed = channels // reduction
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,K,h,w) → the same shape."""
        gate = nn.functional.silu(self.reduce(spatial_mean(x)))  # (N,K/r,1,1)
        return x * torch.sigmoid(self.expand(gate))


class StochasticDepth(nn.Module):
    """Drops a residual branch, image by image, with probability `rate` while training.

    What is kept is scaled by 1/(1-rate), so that evaluation needs no change.
    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N,K,h,w) → the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate
        return x * (kept / (1.0 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class MBConv(nn.Module):
    """Inverted residual: 1×1 expansion, depthwise, squeeze-excite, linear 1×1 projection.

    The input is added where stride is 1 and the width stays. Sandler et al., "MobileNetV2",
    CVPR 2018; Tan and Le, "EfficientNet", ICML 2019 (there the squeeze-excite is a quarter of
    the block's input; here, as in the study's network, of the expanded width).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        expansion: int,
        squeeze_excite: bool,
        drop_path_rate: float,
        kernel: int = 3,
        act: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormAct(in_channels, width, kernel=1, act=act))
        layers.append(ConvNormAct(width, width, kernel, stride, groups=width, act=act))
        if squeeze_excite:
            layers.append(SqueezeExcite(width))
        layers.append(ConvNormAct(width, out_channels, kernel=1, act=None))
        self.branch = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels
        self.drop = StochasticDepth(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N,in,h,w) → (N,out,ceil(h/stride),ceil(w/stride))."""
        if self.residual:
            return x + cast(Tensor, self.drop(self.branch(x)))
        return cast(Tensor, self.branch(x))
