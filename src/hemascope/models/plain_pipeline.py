"""The plain way from files to probabilities: Pillow, torchvision, a DataLoader and torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

BATCH, WORKERS = 32, 2


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _mobile() -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    network: nn.Module = mobilenet_v3_small(num_classes=8).eval()
    return network


class _Files(Dataset[Tensor]):
    def __init__(self, paths: Sequence[str], size: int) -> None:
        self.paths, self.transform = paths, _transform(size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        return self.transform(_opened(self.paths[place]))


@torch.inference_mode()
def _plain(network: nn.Module, size: int, paths: Sequence[str]) -> list[Tensor]:
    loader = DataLoader(_Files(paths, size), batch_size=BATCH, num_workers=WORKERS)
    return [network(images).softmax(1) for images in loader]


def _one_by_one(network: nn.Module, size: int) -> Callable[[str], Tensor]:
    transform = _transform(size)

    def answer(path: str) -> Tensor:
        logits: Tensor = network(transform(_opened(path))[None])
        return logits.softmax(1)

    return answer


def _transform(size: int) -> Callable[[Image.Image], Tensor]:
    from torchvision import transforms

    steps = [
        transforms.Resize((size, size)),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return composed


def _opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
