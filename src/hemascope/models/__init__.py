"""Networks: images (N,3,S,S) in 0..1 → feature maps → features → logits (N,C).

MODELS holds one builder an architecture, called with the number of classes, whether it
has squeeze-and-excitation, and the rates of dropout and stochastic depth.
"""

from __future__ import annotations

from collections.abc import Callable
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
from hemascope.models.network import CellNetwork, LightNormalisation, StainNormalisation
from hemascope.models.resnet import ResNet18
from hemascope.models.simple_cnn import SimpleCNN


def _efficientnet(
    design: Design,
    num_classes: int,
    squeeze_excite: bool,
    drop_rate: float,
    drop_path_rate: float,
) -> CellNetwork:
    return EfficientNet(design, num_classes, squeeze_excite, drop_rate, drop_path_rate)


def _resnet18(
    num_classes: int, squeeze_excite: bool, drop_rate: float, drop_path_rate: float
) -> CellNetwork:
    return ResNet18(num_classes, drop_rate, drop_path_rate)


def _simple_cnn(
    num_classes: int, squeeze_excite: bool, drop_rate: float, drop_path_rate: float
) -> CellNetwork:
    return SimpleCNN(num_classes, drop_rate)


MODELS: dict[str, Callable[[int, bool, float, float], CellNetwork]] = {
    "simple_cnn": _simple_cnn,
    "resnet18": _resnet18,
    "efficientnet_lite": partial(_efficientnet, LITE),
    "efficientnet_lite0": partial(_efficientnet, LITE0),
    "efficientnet_mini": partial(_efficientnet, MINI),
    "deep_efficientnet": partial(_efficientnet, DEEP),
    "deep_efficientnet_printed": partial(_efficientnet, DEEP_PRINTED),
}


def create_model(
    name: str,
    num_classes: int = 8,
    *,
    squeeze_excite: bool = True,
    drop_rate: float = 0.3,
    drop_path_rate: float = 0.2,
    normalise_stain: bool = False,
    normalise_light: bool = False,
    input_upscale: float = 1.0,
    mixstyle: float = 0.0,
) -> CellNetwork:
    """A network that was not trained, initialised from torch's random state.

    The defaults are the study's. Needs 'hemascope[train]'.

    Parameters
    ----------
    name
        One of `list_models()`.
    num_classes
        Number of classes, C.
    squeeze_excite
        Whether the blocks of an EfficientNet have squeeze-and-excitation; other networks have none.
    drop_rate
        Rate of dropout before the last layer.
    drop_path_rate
        Rate of stochastic depth at the last residual branch, rising from 0 at the first; networks
        without residual branches have none.
    normalise_stain
        Bring every image to one stain and light first.
    normalise_light
        Bring every image to one light and ground first, and leave its stain as it is.
    input_upscale
        How many times larger the image is made then.
    mixstyle
        Share of images that have their style mixed with another's while training.

    Returns
    -------
    CellNetwork
        A torch module: images (N,3,S,S), RGB in 0..1 → logits (N,C).

    Raises
    ------
    ValueError
        For an unknown name, fewer than two classes, a rate out of range, or both normalisations.

    Examples
    --------
    >>> import hemascope, torch
    >>> network = hemascope.create_model("simple_cnn", num_classes=5, drop_rate=0.5)
    >>> network(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 5])
    """
    if name not in MODELS:
        raise ValueError(f"unknown model '{name}'; there are {', '.join(MODELS)}")
    if num_classes < 2:
        raise ValueError(f"a model needs at least two classes, not {num_classes}")
    for rate_name, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"{rate_name} must be at least 0 and below 1, not {rate}")
    if normalise_stain and normalise_light:
        raise ValueError("normalise_stain normalises the light as well; leave out normalise_light")
    network = MODELS[name](num_classes, squeeze_excite, drop_rate, drop_path_rate)
    if normalise_stain:
        network.staining = StainNormalisation()
    if normalise_light:
        network.staining = LightNormalisation()
    network.input_upscale, network.mixstyle = input_upscale, mixstyle
    return network
