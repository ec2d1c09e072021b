"""The networks inside a bundle's graph as weights that training can start from.

    python benchmarks/unpack_members.py src/hemascope/pretrained/fallback --out runs

The exporter works batch normalisation into the convolutions. In the weights written here it is the
identity with an offset, so that a run that starts from them must keep its statistics
(`frozen_statistics`). Writes member_0.safetensors and so on, of EfficientNet-Lite0s.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import nn

from hemascope.bundle.bundle import read_bundle
from hemascope.bundle.engine import Engine
from hemascope.data.augment import to_images
from hemascope.models import create_model
from hemascope.models.network import CellNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--upscale", type=float, nargs="+", default=[1.0, 1.5, 1.5])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    bundle = read_bundle(arguments.bundle)
    graph = onnx.load_from_string(bundle.model).graph
    values = {t.name: onnx.numpy_helper.to_array(t).astype(np.float32) for t in graph.initializer}
    stored = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    convolutions = [
        [values.get(stored.get(name, name), values.get(name)) for name in node.input[1:3]]
        for node in graph.node
        if node.op_type == "Conv" and len(node.input) == 3
    ]
    heads = [
        [values.get(stored.get(name, name), values.get(name)) for name in node.input[1:3]]
        for node in graph.node
        if node.op_type == "Gemm"
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    each = len(convolutions) // len(heads)
    images = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    expected = Engine(bundle, 1).outputs(images).members
    for number, (head, upscale) in enumerate(zip(heads, arguments.upscale, strict=True)):
        network = create_model("efficientnet_lite0", input_upscale=upscale)
        fill(network, convolutions[number * each : (number + 1) * each], head)
        with torch.no_grad():
            found = network.eval()(to_images(torch.from_numpy(images))).numpy()
        error = float(np.abs(found - expected[:, number]).max())
        if error > 0.02:
            raise SystemExit(
                f"member {number}: its outputs differ from the bundle's by {error:.2g}"
            )
        path = arguments.out / f"member_{number}.safetensors"
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
        print(f"{path}: outputs within {error:.2g} of the bundle's")


def fill(
    network: CellNetwork, convolutions: list[list[np.ndarray]], head: list[np.ndarray]
) -> None:
    """Puts folded convolutions, in the order of the graph, and the last layer into a network."""
    layers = [module for module in network.maps.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in network.maps.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer, norm, (weight, bias) in zip(layers, norms, convolutions, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            norm.weight.fill_(1)
            norm.bias.copy_(torch.from_numpy(bias))
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
        network.head.weight.copy_(torch.from_numpy(head[0]))
        network.head.bias.copy_(torch.from_numpy(head[1]))


if __name__ == "__main__":
    main()
