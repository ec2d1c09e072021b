"""Operations with gradients of their own, where PyTorch's are slow on processors.

Each gives the values of the plain operation, and PyTorch's gradients up to rounding.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn


def spatial_mean(x: Tensor) -> Tensor:
    """Mean over height and width: (N,K,h,w) → (N,K,1,1).

    PyTorch lays out the mean's gradient in memory otherwise than `x`, and with it every gradient
    further down, which then costs several times as much.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, _SpatialMean.apply(x))  # type: ignore[no-untyped-call]
    return x.mean((2, 3), keepdim=True)


def depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Depthwise convolution (N,K,h,w) * (K,1,k,k), k odd, padded by k//2, in one precision.

    The gradient of a stride is taken as that of stride 1, with zeros at the places that the stride
    leaves out, and the weight's is computed in single precision: oneDNN's own take up to ten and
    up to five times as long in bfloat16.
    """
    return cast(Tensor, _Depthwise.apply(x, weight, stride))  # type: ignore[no-untyped-call]


class _SpatialMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.empty_like(x).copy_(gradient / (x.shape[2] * x.shape[3]))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        padding = weight.shape[-1] // 2
        return nn.functional.conv2d(x, weight, None, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.stride > 1:
            spread = torch.zeros_like(x)
            spread[:, :, :: ctx.stride, :: ctx.stride] = gradient
            gradient = spread
        if ctx.needs_input_grad[0]:
            of_x = _gradients(gradient, x, weight, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            if x.dtype == torch.bfloat16:
                gradient, x, weight = gradient.float(), x.float(), weight.float()
            of_weight = _gradients(gradient, x, weight, [False, True, False])[1]
            of_weight = of_weight.to(ctx.saved_tensors[1].dtype)
        return of_x, of_weight, None


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of x, of the weight and of no bias, at stride 1."""
    padding, channels = weight.shape[-1] // 2, x.shape[1]
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        gradient, x, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], channels, wanted
    )
