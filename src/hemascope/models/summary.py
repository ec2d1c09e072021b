"""A network's layers, read off the network itself: shapes, parameters, multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hemascope.models.blocks import ConvNormAct, MBConv, SqueezeExcite
from hemascope.models.network import CellNetwork
from hemascope.models.resnet import BasicBlock

Shape = tuple[int, int, int]
STRIDED = (nn.Conv2d, nn.MaxPool2d)


@dataclass(frozen=True)
class Layer:
    """One stage of a network. `shape` is its output's: (channels, height, width)."""

    name: str
    kind: str
    stride: int
    squeeze_excite: bool
    shape: Shape
    parameters: int
    multiply_accumulates: int


def layers_of(network: CellNetwork, size: int) -> tuple[Layer, ...]:
    """The stages of the feature maps in order, their mean, and the linear layers.

    Of one image (1,3,size,size). Their parameters sum to the network's, and their
    multiply-accumulates to `multiply_accumulates(network, size)`.
    """
    linear = [module for module in network.children() if isinstance(module, nn.Linear)]
    shapes: dict[nn.Module, Shape] = {}  # in the order in which they are called
    note = partial(_note, shapes)
    hooks = [stage.register_forward_hook(note) for stage in (*network.maps.children(), *linear)]
    try:
        operations = _count_operations(network, size).get_flop_counts()
    finally:
        for hook in hooks:
            hook.remove()
    paths = {module: f"{type(network).__name__}.{path}" for path, module in network.named_modules()}
    layers = [
        Layer(
            name=name,
            kind=_kind(stage),
            stride=_stride(stage),
            squeeze_excite=any(isinstance(module, SqueezeExcite) for module in stage.modules()),
            shape=shape,
            parameters=parameters_of(stage),
            multiply_accumulates=sum(operations.get(paths[stage], {}).values()) // 2,
        )
        for name, (stage, shape) in zip(_names(shapes), shapes.items(), strict=True)
    ]
    if len(linear) == 1:  # a hidden layer takes the maps as they are
        layers.insert(-1, Layer("pool", "mean", 1, False, (linear[0].in_features, 1, 1), 0, 0))
    return tuple(layers)


def multiply_accumulates(network: nn.Module, size: int) -> int:
    """Of one image of that size: half of the floating-point operations that torch counts."""
    return int(_count_operations(network, size).get_total_flops()) // 2


def parameters_of(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _count_operations(network: nn.Module, size: int) -> FlopCounterMode:
    """What torch counted while the network, as in evaluation, saw one black image."""
    counter = FlopCounterMode(display=False)
    with _evaluating(network), counter:
        network(torch.zeros(1, 3, size, size))
    return counter


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def _note(shapes: dict[nn.Module, Shape], stage: nn.Module, _: object, output: Tensor) -> None:
    """Forward hook: keeps the shape of a stage's output, (1,K,h,w) or (1,F)."""
    channels, height, width = (*output.shape[1:], 1, 1)[:3]
    shapes[stage] = (channels, height, width)


def _names(stages: Iterable[nn.Module]) -> list[str]:
    """Stem, block 1, block 2, …, head, linear; numbered where there are several."""
    roles = [_role(index, stage) for index, stage in enumerate(stages)]
    return [
        f"{role} {roles[: index + 1].count(role)}" if roles.count(role) > 1 else role
        for index, role in enumerate(roles)
    ]


def _role(index: int, stage: nn.Module) -> str:
    match stage:
        case ConvNormAct():
            return "head" if index else "stem"
        case MBConv() | BasicBlock():
            return "block"
        case nn.Conv2d():
            return "conv"
        case nn.BatchNorm2d():
            return "norm"
        case nn.MaxPool2d():
            return "max pool"
        case nn.Linear():
            return "linear"
    return type(stage).__name__


def _kind(stage: nn.Module) -> str:
    """What a stage is, in a few words: MBConv 6, 3×3 (6 is its expansion)."""
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    kernel = max((convolution.kernel_size[0] for convolution in convolutions), default=0)
    match stage:
        case MBConv():
            width = max(convolution.groups for convolution in convolutions)  # depthwise
            return f"MBConv {width // convolutions[0].in_channels}, {kernel}×{kernel}"
        case BasicBlock():
            return f"residual block, {kernel}×{kernel}"
        case ConvNormAct() | nn.Conv2d():
            return f"Conv {kernel}×{kernel}"
        case nn.BatchNorm2d():
            return "batch norm"
        case nn.MaxPool2d(kernel_size=side):
            return f"max pool {side}×{side}"
        case nn.Linear():
            return "linear"
    return type(stage).__name__


def _stride(stage: nn.Module) -> int:
    strides = [module.stride for module in stage.modules() if isinstance(module, STRIDED)]
    return max((stride if isinstance(stride, int) else stride[0] for stride in strides), default=1)
