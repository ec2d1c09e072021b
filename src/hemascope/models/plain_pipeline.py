"""The plain way from files to probabilities: Pillow, torchvision, a DataLoader and torch.

It is what `hemascope benchmark` compares with: uncompiled, in single precision. Needs torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hemascope.models import MODELS, create_model

BATCH, WORKERS = 32, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainPipeline:
    """A network that takes files through torchvision's transforms, at `size` pixels a side."""

    def __init__(self, network: nn.Module, size: int) -> None:
        self.network, self.size = network.eval(), size
        self.transform = _transform(size)

    @torch.inference_mode()
    def classify_all(self, paths: Sequence[str]) -> list[Tensor]:
        """Probabilities of files, in batches of 32 that two worker processes prepare."""
        loader = DataLoader(_Files(paths, self.transform), batch_size=BATCH, num_workers=WORKERS)
        return [self.network(images).softmax(1) for images in loader]

    @torch.inference_mode()
    def classify_one(self, path: str) -> Tensor:
        """Probabilities of one file, (1,C)."""
        logits: Tensor = self.network(self.transform(_open_rgb(path))[None])
        return logits.softmax(1)


def plain_pipelines(architecture: str, num_classes: int, size: int) -> dict[str, PlainPipeline]:
    """The plain ways by name: of the same network, of the study's, and of MobileNetV3-Small.

    224 pixels are the study's, and what most networks take. Weights do not matter to the speed.
    Raises ValueError for an architecture that is no single network.
    """
    if architecture not in MODELS:
        raise ValueError(f"'{architecture}' is no single network; take a bundle of one")
    network = create_model(architecture, num_classes)
    return {
        "plain way, same network, same pixels": PlainPipeline(network, size),
        "plain way, same network, 224 pixels": PlainPipeline(network, 224),
        "plain way, DeepEfficientNet, 224 pixels": PlainPipeline(
            create_model("deep_efficientnet"), 224
        ),
        "plain way, MobileNetV3-Small, 224 pixels": PlainPipeline(_mobile_net(), 224),
    }


def _mobile_net() -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    network: nn.Module = mobilenet_v3_small(num_classes=8)
    return network


class _Files(Dataset[Tensor]):
    def __init__(self, paths: Sequence[str], transform: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(_open_rgb(self.paths[index]))


def _transform(size: int) -> Callable[[Image.Image], Tensor]:
    from torchvision import transforms

    steps = [
        transforms.Resize((size, size)),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return composed


def _open_rgb(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
