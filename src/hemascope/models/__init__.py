"""Networks: images (N,3,S,S) in 0..1 → feature maps → features → logits (N,C).

MODELS holds one builder an architecture, called with the number of classes and the switches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hemascope.models.efficientnet import (
    DEEP,
    DEEP_PRINTED,
    LITE,
    LITE0,
    MINI,
    Design,
    EfficientNet,
)
from hemascope.models.network import CellNetwork, StainNormalisation
from hemascope.models.resnet import ResNet18
from hemascope.models.simple_cnn import SimpleCNN


@dataclass(frozen=True)
class Switches:
    """What the ablations turn on and off; the defaults are the study's own network.

    `dropout` acts before the last layer, `stochastic_depth` on the residual branches.
    `normalise_stain` brings every picture to one stain and light first, and `enlarge` makes it so
    many times larger then. A share `mixstyle` of images has its style mixed while training.
    """

    squeeze_excite: bool = True
    dropout: float = 0.3
    stochastic_depth: float = 0.2
    normalise_stain: bool = False
    enlarge: float = 1.0
    mixstyle: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dropout", "stochastic_depth"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(
                    f"{name} must be at least 0 and below 1, not {getattr(self, name)}"
                )


def _efficientnet(design: Design, num_classes: int, switches: Switches) -> CellNetwork:
    return EfficientNet(
        design,
        num_classes,
        switches.squeeze_excite,
        switches.dropout,
        switches.stochastic_depth,
    )


def _resnet18(num_classes: int, switches: Switches) -> CellNetwork:
    return ResNet18(num_classes, switches.dropout, switches.stochastic_depth)


def _simple_cnn(num_classes: int, switches: Switches) -> CellNetwork:
    return SimpleCNN(num_classes, switches.dropout)


MODELS: dict[str, Callable[[int, Switches], CellNetwork]] = {
    "simple_cnn": _simple_cnn,
    "resnet18": _resnet18,
    "efficientnet_lite": partial(_efficientnet, LITE),
    "efficientnet_lite0": partial(_efficientnet, LITE0),
    "efficientnet_mini": partial(_efficientnet, MINI),
    "deep_efficientnet": partial(_efficientnet, DEEP),
    "deep_efficientnet_printed": partial(_efficientnet, DEEP_PRINTED),
}


def build_model(name: str, num_classes: int = 8, switches: Switches | None = None) -> CellNetwork:
    """The network of that name, freshly initialised from torch's random state.

    Raises ValueError for an unknown name, or fewer than two classes.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model '{name}'; there are {', '.join(MODELS)}")
    if num_classes < 2:
        raise ValueError(f"a model needs at least two classes, not {num_classes}")
    switches = switches or Switches()
    network = MODELS[name](num_classes, switches)
    if switches.normalise_stain:
        network.staining = StainNormalisation()
    network.enlarge, network.mixstyle = switches.enlarge, switches.mixstyle
    return network
