"""Operations with gradients of their own, against PyTorch's automatic ones."""

import pytest
import torch
from torch import Tensor, nn

from hemascope.models.gradients import depthwise, spatial_mean


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad((output * torch.randn_like(output)).sum(), inputs)


def image(channels: int, height: int, width: int) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(3, channels, height, width, dtype=torch.float64)
    return x.to(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.slow
def test_spatial_mean() -> None:
    x = image(5, 4, 6)
    ours, plain = spatial_mean(x), x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(ours, plain)
    (of_ours,), (of_plain,) = gradients(ours, x), gradients(plain, x)
    torch.testing.assert_close(of_ours, of_plain)
    assert of_ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (8, 5)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_depthwise(height: int, width: int, kernel: int, stride: int) -> None:
    x = image(6, height, width)
    weight = torch.randn(6, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    ours = depthwise(x, weight, stride)
    plain = nn.functional.conv2d(x, weight, None, stride, kernel // 2, groups=6)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradients(ours, x, weight), gradients(plain, x, weight))


def test_depthwise_in_bfloat16_has_the_gradient_of_single_precision() -> None:
    x = image(6, 8, 8).detach().bfloat16().requires_grad_()
    weight = torch.randn(6, 1, 5, 5).bfloat16().requires_grad_()
    ours = gradients(depthwise(x, weight, 2), x, weight)
    single = x.detach().float().requires_grad_(), weight.detach().float().requires_grad_()
    plain = nn.functional.conv2d(*single, None, 2, 2, groups=6).bfloat16()
    for value, expected in zip(ours, gradients(plain, *single), strict=True):
        assert value.dtype == torch.bfloat16
        torch.testing.assert_close(value.float(), expected, rtol=2e-2, atol=5e-2)


def test_depthwise_leaves_out_the_gradient_of_a_frozen_weight() -> None:
    x, weight = image(6, 8, 8), torch.randn(6, 1, 3, 3, dtype=torch.float64)
    plain = nn.functional.conv2d(x, weight, None, 2, 1, groups=6)
    torch.testing.assert_close(gradients(depthwise(x, weight, 2), x), gradients(plain, x))
