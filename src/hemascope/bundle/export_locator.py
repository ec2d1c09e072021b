"""Locator network → locator bundle; nothing is exported where torch and onnxruntime disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from hemascope.arrays import ImageArray
from hemascope.bundle.export import trace
from hemascope.bundle.locator_bundle import LocatorBundle, LocatorCard, LocatorEngine
from hemascope.data.augment import to_images
from hemascope.data.synthetic_fields import draw_field
from hemascope.errors import BundleError
from hemascope.files import sha256_of
from hemascope.models.locator import LocatorNetwork

TOLERANCE = 1e-3  # of maps, which are some units wide
SIZES = ((192, 256), (160, 96))  # height and width of the images that outputs are compared on


class _Graph(nn.Module):
    """What goes into locator.onnx: (N,H,W,3) uint8 → maps."""

    def __init__(self, network: LocatorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.network(images.permute(0, 3, 1, 2).to(torch.float32) / 255.0)
        return maps


def export_locator(network: LocatorNetwork, card: LocatorCard) -> LocatorBundle:
    """A bundle of the network, its card completed with the hash and the number of parameters.

    torch and onnxruntime must agree on drawn fields and on noise, of two sizes. Raises BundleError
    where they differ by more than rounding errors.
    """
    network = network.to("cpu").float().eval()
    model = _onnx(network)
    complete = replace(
        card,
        model_sha256=sha256_of(model),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
    bundle = LocatorBundle(complete, model)
    engine = LocatorEngine(bundle)
    for images in compared_images():
        with torch.inference_mode():
            expected = network(to_images(torch.from_numpy(images))).numpy()
        worst = float(np.abs(engine.maps(images) - expected).max())
        if not worst <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise BundleError(
                f"not exported: onnxruntime's maps differ from torch's by up to {worst:.2g}"
            )
    return bundle


def compared_images() -> list[ImageArray]:
    """Drawn fields and noise (N,H,W,3), of two sizes."""
    images = []
    for height, width in SIZES:
        fields = [draw_field(seed, width, height, red_diameter=30).image for seed in range(2)]
        images.append(np.stack([np.asarray(field) for field in fields]))
        noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        images.append(noise)
    return images


def _onnx(network: LocatorNetwork) -> bytes:
    images = torch.zeros(2, 192, 256, 3, dtype=torch.uint8)
    axes = {
        "images": {0: "n", 1: "height", 2: "width"},
        "maps": {0: "n", 2: "rows", 3: "columns"},
    }
    return trace(_Graph(network), images, ["maps"], axes)
