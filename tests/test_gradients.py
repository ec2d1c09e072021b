"""Operations with gradients of their own, against PyTorch's automatic ones."""

import pytest
import torch
from torch import Tensor, nn

from hemascope.models.gradients import excite, spatial_mean, strided_depthwise


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad((output * torch.randn_like(output)).sum(), inputs)


def image(channels: int, height: int, width: int) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(3, channels, height, width, dtype=torch.float64)
    return x.to(memory_format=torch.channels_last).requires_grad_()


def test_spatial_mean() -> None:
    x = image(5, 4, 6)
    ours, plain = spatial_mean(x), x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(ours, plain)
    (of_ours,), (of_plain,) = gradients(ours, x), gradients(plain, x)
    torch.testing.assert_close(of_ours, of_plain)
    assert of_ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (8, 5)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [2, 3])
def test_strided_depthwise(height: int, width: int, kernel: int, stride: int) -> None:
    x = image(6, height, width)
    weight = torch.randn(6, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    ours = strided_depthwise(x, weight, stride)
    plain = nn.functional.conv2d(x, weight, None, stride, kernel // 2, groups=6)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradients(ours, x, weight), gradients(plain, x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_excite(dtype: torch.dtype) -> None:
    x = image(8, 5, 6).detach().to(dtype).requires_grad_()
    reduce, expand = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
    weights = (*reduce.parameters(), *expand.parameters())
    ours = excite(x, reduce, expand)
    mean = x.float().mean((2, 3), keepdim=True)
    plain = x * torch.sigmoid(expand(nn.functional.silu(reduce(mean)))).to(dtype)
    rounding = (
        {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    )
    torch.testing.assert_close(ours, plain, **rounding)
    torch.testing.assert_close(
        gradients(ours, x, *weights), gradients(plain, x, *weights), **rounding
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        torch.testing.assert_close(excite(x, reduce, expand), plain, **rounding)
