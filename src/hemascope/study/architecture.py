"""A network's layers, read off the network itself: shapes, parameters, multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hemascope.models.blocks import ConvNormAct, MBConv, SqueezeExcite
from hemascope.models.network import CellNetwork


@dataclass(frozen=True)
class Layer:
    """One stage of a network. `shape` is its output's: (channels, height, width)."""

    kind: str
    shape: tuple[int, int, int]
    parameters: int
    multiply_accumulates: int


def layers_of(network: CellNetwork, size: int) -> tuple[Layer, ...]:
    """The stages of the feature maps in order, then what makes logits of them, for a size.

    Their parameters sum to the network's, and so do their multiply-accumulates.
    """
    layers = []
    with _evaluating(network):
        x = torch.zeros(1, 3, size, size)
        for stage in cast(nn.Sequential, network.maps):
            with FlopCounterMode(display=False) as counter:
                x = cast(Tensor, stage(x))
            _, channels, height, width = x.shape
            operations = counter.get_total_flops() // 2
            layers.append(
                Layer(_kind(stage), (channels, height, width), parameters_of(stage), operations)
            )
    hidden = sum(isinstance(module, nn.Linear) for module in network.modules()) > 1
    last = Layer(
        kind="hidden layer, linear" if hidden else "mean, linear",
        shape=(network.head.out_features, 1, 1),
        parameters=parameters_of(network) - sum(layer.parameters for layer in layers),
        multiply_accumulates=multiply_accumulates(network, size)
        - sum(layer.multiply_accumulates for layer in layers),
    )
    return (*layers, last)


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_accumulates(network: nn.Module, size: int) -> int:
    """Of one image of that size: half of the floating-point operations that torch counts."""
    with _evaluating(network), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops()) // 2


def _kind(stage: nn.Module) -> str:
    """What a stage is, in a few words: MBConv 3×3, stride 2, squeeze-excite."""
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        return type(stage).__name__
    strides = max(convolution.stride[0] for convolution in convolutions)
    kernel = max(convolution.kernel_size[0] for convolution in convolutions)
    name = type(stage).__name__
    if isinstance(stage, (ConvNormAct, nn.Sequential, nn.Conv2d)):
        name = "Conv"
    words = [f"{name} {kernel}×{kernel}"]
    if isinstance(stage, MBConv):
        widest = max(convolution.out_channels for convolution in convolutions)
        words[0] += f", ×{widest // convolutions[0].in_channels}"
    if strides > 1:
        words.append(f"stride {strides}")
    if any(isinstance(module, SqueezeExcite) for module in stage.modules()):
        words.append("squeeze-excite")
    return ", ".join(words)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)
