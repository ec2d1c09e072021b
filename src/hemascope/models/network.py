"""CellNetwork: what every architecture here has in common, from images to logits."""

from __future__ import annotations

import math
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from hemascope.models.blocks import Depthwise
from hemascope.models.gradients import spatial_mean

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NetworkOutputs(NamedTuple):
    """Logits (N,C), features (N,F), class_map (N,C,h,w), style_statistics (N,T), members (N,M,C).

    An ensemble of M members gives the means of their logits and class maps, and their features and
    style statistics side by side; `members` are their logits. A single network is its one member.
    """

    logits: Tensor
    features: Tensor
    class_map: Tensor
    style_statistics: Tensor
    members: Tensor


MIXED_AFTER = (1, 3, 5)
"""After which layers below `maps` styles are mixed: where an EfficientNet's first stages end."""


GROUND_QUANTILE = 0.15  # of a channel's optical densities: that of the ground


class CellNetwork(nn.Module):
    """Images (N,3,S,S), RGB in 0..1 → feature maps (N,K,h,w) → mean (N,K) → logits (N,C).

    Normalisation by ImageNet's mean and deviation is the first layer, so that nothing outside
    has to know of it; `staining` before it is the identity, a StainNormalisation or a
    LightNormalisation, and `input_upscale` is how many times larger the image is made then, for
    finer maps. Since the logits are linear in the mean of the feature maps, the class activation
    map (Zhou et al., CVPR 2016) is the same linear layer at each place, and equals Grad-CAM at the
    last convolution (Selvaraju et al., ICCV 2017) up to its scale and ReLU.
    """

    mean: Tensor
    std: Tensor
    map_offset = 0.5
    """By how many steps the feature maps are shifted against the image: the value in row i and
    column j belongs to row i - map_offset and column j - map_offset. A convolution of odd width and
    stride s with equal padding is centred on the first of each s pixels, hence the shift."""

    def __init__(
        self, maps: nn.Module, num_features: int, num_classes: int, drop_rate: float
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.staining: nn.Module = nn.Identity()
        self.input_upscale = 1.0
        self.mixstyle = 0.0
        self.frozen_layers = 0
        self.frozen_statistics = False
        self.maps = maps
        self.dropout = nn.Dropout(drop_rate)
        self.head = nn.Linear(num_features, num_classes)
        self.apply(initialise)

    def freeze(self, layers: int, statistics: bool = False, depthwise: bool = False) -> None:
        """Keeps the first so many layers below `maps` from learning; their statistics stay too.

        With `statistics`, all layers normalise by the statistics that they have, and with
        `depthwise`, all depthwise convolutions keep their weights.
        """
        self.frozen_layers, self.frozen_statistics = layers, statistics
        for layer in list(self.maps.children())[:layers]:
            layer.requires_grad_(False)
        for module in self.maps.modules() if depthwise else ():
            if isinstance(module, Depthwise):
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As a Module's, but what is frozen normalises as in evaluation."""
        super().train(mode)
        for layer in list(self.maps.children())[: self.frozen_layers]:
            layer.eval()
        if self.frozen_statistics:
            for module in self.maps.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N,3,S,S) in 0..1 → early maps, the last with at least S/4 a side, and (N,K,h,w).

        S is the side of the image as it is enlarged.
        """
        maps = early = (self._upscale(self.staining(images)) - self.mean) / self.std
        side = maps.shape[-1]
        for place, stage in enumerate(self.maps.children()):
            maps = stage(maps)
            if self.training and self.mixstyle > 0 and place in MIXED_AFTER:
                maps = mix_styles(maps, self.mixstyle)
            if 4 * maps.shape[-1] >= side:
                early = maps
        return early, maps

    def _upscale(self, images: Tensor) -> Tensor:
        if self.input_upscale == 1:
            return images
        side = round(self.input_upscale * int(images.shape[-1]))  # a number, in tracing too
        return nn.functional.interpolate(images, size=(side, side), mode="bilinear")

    def feature_maps(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → (N,K,h,w)."""
        return self.stages(images)[1]

    def embed(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → features (N,K), of which training drops some."""
        features = spatial_mean(self.feature_maps(images)).flatten(1)
        return cast(Tensor, self.dropout(features))

    def forward(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → logits (N,C)."""
        return cast(Tensor, self.head(self.embed(images)))

    def map_offset_at(self, size: int) -> float:
        """Its `map_offset`, whatever the side of the images."""
        return self.map_offset

    def outputs(self, images: Tensor) -> NetworkOutputs:
        """Logits, the features behind them, class activation maps and texture. For evaluation.

        `class_map[n, c].mean() + bias[c]` is `logits[n, c]`.
        """
        early, maps = self.stages(images)
        features = maps.mean((2, 3))
        class_map = nn.functional.conv2d(maps, self.head.weight[:, :, None, None])
        logits = self.head(features)
        return NetworkOutputs(logits, features, class_map, style_statistics(early), logits[:, None])


class StainNormalisation(nn.Module):
    """Images as they would be in one stain and light: (N,3,S,S) in 0..1 → the same.

    A channel's optical density is taken from the image's ground, and in units of that of the
    image's most stained parts; what is left is how the dyes are spread.
    """

    STAINED = 0.97  # quantile of a channel's density
    DENSITIES = (1.2, 1.5, 0.8)  # of the most stained parts, afterwards
    LEAST = 0.1  # an image without any stain is not blown up

    densities: Tensor

    def __init__(self) -> None:
        super().__init__()
        standard = torch.tensor(self.DENSITIES).view(1, 3, 1, 1)
        self.register_buffer("densities", standard, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → the same shape."""
        density, (ground, stained) = _measure_density(images, GROUND_QUANTILE, self.STAINED)
        unit = (stained - ground).clamp(min=self.LEAST) / self.densities
        return torch.exp(-(density - ground) / unit).clamp(max=1.0)


class LightNormalisation(nn.Module):
    """Images as they would be on the ground of PBC's images: (N,3,S,S) in 0..1 → the same.

    A channel's optical density is taken from the image's ground, and PBC's is added: by Beer and
    Lambert's law, this exchanges the light and the ground and leaves the dyes as they are.
    """

    DENSITIES = (0.004, 0.112, 0.233)  # the median of PBC's

    densities: Tensor

    def __init__(self) -> None:
        super().__init__()
        ground = torch.tensor(self.DENSITIES).view(1, 3, 1, 1)
        self.register_buffer("densities", ground, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → the same shape."""
        density, (ground,) = _measure_density(images, GROUND_QUANTILE)
        return torch.exp(ground - density - self.densities).clamp(max=1.0)


def _measure_density(images: Tensor, *quantiles: float) -> tuple[Tensor, list[Tensor]]:
    """Optical densities (N,3,S,S) of images in 0..1, and quantiles of them, (N,3,1,1) each."""
    density = -images.clamp(min=1 / 255).log()
    ordered = nn.functional.avg_pool2d(density, 2).flatten(2).sort(2).values  # (N,3,S²/4)
    last = int(ordered.shape[2]) - 1  # a number, in tracing too
    return density, [ordered[:, :, round(each * last)][:, :, None, None] for each in quantiles]


def mix_styles(maps: Tensor, share: float) -> Tensor:
    """Maps (N,K,h,w), of which a share gets means and deviations between its own and another's.

    Zhou et al., "Domain generalization with MixStyle", ICLR 2021.
    """
    n, device = len(maps), maps.device
    with torch.no_grad():
        mean = maps.mean((2, 3), keepdim=True, dtype=torch.float32)
        spread = (maps.float().square().mean((2, 3), keepdim=True) - mean.square()).clamp(min=1e-6)
        spread = spread.sqrt()
        other = torch.rand(n, device=device).argsort()
        part = torch.rand(n, 1, 1, 1, device=device)
        part = part * (torch.rand(n, 1, 1, 1, device=device) < share)
        factor = 1 + part * (spread[other] / spread - 1)
        offset = torch.lerp(mean, mean[other], part) - mean * factor
    return maps * factor.to(maps.dtype) + offset.to(maps.dtype)


def style_statistics(maps: Tensor) -> Tensor:
    """Mean and standard deviation of each map: (N,T,s,s) → (N,2T).

    Of early maps they say what an image's colours and grain are like, wherever in it they are.
    Huang and Belongie, "Arbitrary style transfer in real-time", ICCV 2017.
    """
    mean = maps.mean((2, 3))
    spread = (maps - mean[:, :, None, None]).square().mean((2, 3)).sqrt()
    return torch.cat([mean, spread], dim=1)


def initialise(module: nn.Module) -> None:
    """He et al. (ICCV 2015) for convolutions; a small head, so that training starts unsure."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        bound = 1.0 / math.sqrt(module.in_features)
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)
