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


def excite(x: Tensor, reduce: nn.Conv2d, expand: nn.Conv2d) -> Tensor:
    """x (N,K,h,w) times sigmoid(expand(silu(reduce(mean of x)))), with 1×1 convolutions.

    The gate is computed in single precision, and the two gradients of `x`, from the product and
    from the mean, are summed as they are made.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        gate = nn.functional.silu(reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(expand(gate))
    with torch.autocast(x.device.type, enabled=False):
        weights = (reduce.weight, reduce.bias, expand.weight, expand.bias)
        return cast(Tensor, _Excite.apply(x, *weights))  # type: ignore[no-untyped-call]


def strided_depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Depthwise convolution (N,K,h,w) * (K,1,k,k), k odd, padded by k//2, in one precision.

    Its gradient is taken as that of stride 1, with zeros at the places that the stride leaves
    out: oneDNN's own takes up to ten times as long in bfloat16.
    """
    return cast(Tensor, _StridedDepthwise.apply(x, weight, stride))  # type: ignore[no-untyped-call]


class _SpatialMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.empty_like(x).copy_(gradient / (x.shape[2] * x.shape[3]))


class _Excite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        reduce, expand = weights[0].flatten(1), weights[2].flatten(1)  # (K/4,K), (K,K/4)
        mean = x.mean((2, 3), dtype=torch.float32)  # (N,K)
        reduced = torch.addmm(weights[1], mean, reduce.t())  # (N,K/4)
        gate = torch.sigmoid(torch.addmm(weights[3], nn.functional.silu(reduced), expand.t()))
        ctx.save_for_backward(x, mean, reduced, gate, reduce, expand)
        return x * _as(x, gate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, mean, reduced, gate, reduce, expand = ctx.saved_tensors
        sigmoid = torch.sigmoid(reduced)
        of_gate = (gradient * x).sum((2, 3), dtype=torch.float32)  # (N,K)
        of_expanded = of_gate * gate * (1 - gate)
        of_reduced = of_expanded @ expand * sigmoid * (1 + reduced * (1 - sigmoid))  # (N,K/4)
        of_mean = of_reduced @ reduce / (x.shape[2] * x.shape[3])
        of_x = torch.addcmul(_as(x, of_mean), gradient, _as(x, gate))
        return (
            of_x,
            (of_reduced.t() @ mean)[:, :, None, None],
            of_reduced.sum(0),
            (of_expanded.t() @ (reduced * sigmoid))[:, :, None, None],
            of_expanded.sum(0),
        )


class _StridedDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        padding = weight.shape[-1] // 2
        return nn.functional.conv2d(x, weight, None, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        padding, channels = weight.shape[-1] // 2, x.shape[1]
        spread = torch.zeros_like(x)
        spread[:, :, :: ctx.stride, :: ctx.stride] = gradient
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            spread, x, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], channels,
            [True, True, False],
        )  # fmt: skip
        return of_x, of_weight, None


def _as(x: Tensor, of_channels: Tensor) -> Tensor:
    """(N,K) → (N,K,1,1) in the precision of `x`."""
    return of_channels.to(x.dtype)[:, :, None, None]
