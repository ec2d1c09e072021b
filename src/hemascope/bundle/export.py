"""Network → bundle; nothing is exported where torch and onnxruntime disagree."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor, nn

from hemascope.arrays import ImageArray
from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import OUTPUTS, Card
from hemascope.bundle.engine import Engine
from hemascope.classes import BLOOD_CELLS
from hemascope.data.augment import to_images
from hemascope.data.synthetic import draw_cell
from hemascope.errors import BundleError
from hemascope.files import sha256_of
from hemascope.models.ensemble import Ensemble
from hemascope.models.network import CellNetwork, NetworkOutputs
from hemascope.preprocess import InputSpec

OPSET = 18
TOLERANCE = 1e-3  # of logits, which are some units wide
HALF_TOLERANCE = 2e-2  # where the weights have 11 binary digits
LARGE = 1024  # values; smaller tensors are not worth rounding


class _Graph(nn.Module):
    """What goes into model.onnx: (N,S,S,3) uint8 → NetworkOutputs."""

    def __init__(self, network: CellNetwork | Ensemble) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled = images.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        return tuple(self.network.outputs(scaled))  # type: ignore[return-value]


def export(
    network: CellNetwork | Ensemble, card: Card, sample: ImageArray, half: bool = False
) -> Bundle:
    """A bundle of the network or ensemble, its card completed with the model's hash.

    torch and onnxruntime must agree on `sample`, images (N,S,S,3), and on noise. With `half`, the
    weights are stored in half precision, which halves the file; the network still computes in
    single precision. Raises BundleError where the outputs differ by more than rounding errors.
    """
    network = network.to("cpu").float().eval()
    model = _onnx(network, card.input.size)
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    if half:
        model = _store_in_half_precision(model)
    digest = sha256_of(model)
    complete = replace(
        card,
        model_sha256=digest,
        outputs=OUTPUTS,
        map_offset=network.map_offset_at(card.input.size),
    )
    bundle = Bundle(complete, model)
    size = card.input.size
    noise = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    for images in (sample, noise, noise[:1]):
        _check_parity(network, Engine(bundle), images, tolerance)
    return bundle


def _onnx(network: CellNetwork | Ensemble, size: int) -> bytes:
    images = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    names = list(NetworkOutputs._fields)
    return trace(_Graph(network), images, names, {name: {0: "n"} for name in ["images", *names]})


def trace(
    graph: nn.Module, images: Tensor, outputs: list[str], dynamic_axes: dict[str, dict[int, str]]
) -> bytes:
    """The ONNX graph of a module, by what it does with some images."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is deprecated but writes a smaller graph and needs no extra package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            (images,),
            buffer,  # type: ignore[arg-type]
            input_names=["images"],
            output_names=outputs,
            dynamic_axes=dynamic_axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def _store_in_half_precision(model: bytes) -> bytes:
    """The graph with its large tensors stored in half precision, and widened when it is loaded."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < LARGE:
            continue
        stored = onnx.numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.half")
        graph.initializer.remove(tensor)
        graph.initializer.append(stored)
        widened = onnx.helper.make_node(
            "Cast", [stored.name], [tensor.name], to=onnx.TensorProto.FLOAT
        )
        graph.node.insert(0, widened)
    return bytes(proto.SerializeToString())


def draw_sample(spec: InputSpec) -> ImageArray:
    """One drawn cell a class through the spec, (8,S,S,3), to compare outputs on."""
    return np.stack([spec.apply(_drawn(name)) for name in BLOOD_CELLS.names])


@cache
def _drawn(name: str) -> Image.Image:
    """A drawn cell, which takes longer to draw than all else that a sample needs."""
    return draw_cell(name, seed=0)


@torch.inference_mode()
def _check_parity(
    network: CellNetwork | Ensemble,
    engine: Engine,
    images: ImageArray,
    tolerance: float,
) -> None:
    expected = network.outputs(to_images(torch.from_numpy(images)))
    for name, ours, theirs in zip(expected._fields, engine.outputs(images), expected, strict=True):
        worst = float(np.abs(ours - theirs.numpy()).max())
        if not worst <= tolerance * max(1.0, float(theirs.abs().max())):
            raise BundleError(
                f"not exported: onnxruntime's {name} differ from torch's by up to {worst:.2g}"
            )
