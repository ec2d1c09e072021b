"""A bundle whose network computes in eight-bit integers. Needs onnx."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.arrays import ImageArray
from hemascope.bundle.bundle import Bundle, replace_model
from hemascope.bundle.engine import Engine
from hemascope.errors import BundleError

BATCH = 16
LARGEST = 127  # of a weight, and of two neighbours but for their rounding
AGREED = 0.99  # least share of the images that both must name alike


def quantise(bundle: Bundle, images: ImageArray) -> Bundle:
    """The bundle with its convolutions in eight bits, their ranges taken from images (N,S,S,3).

    What follows the last feature map stays in single precision. The images must be like those to
    come; 256 are enough. It is no longer calibrated, and what was measured of it is left out.
    Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-
    only inference", CVPR 2018. Raises BundleError for one that is in eight bits already, and where
    fewer than 99 % of the images are then predicted as before, as happens to networks that were not
    made for it.
    """
    if bundle.card.precision == "int8":
        raise BundleError(f"'{bundle.card.name}' computes in eight bits already")
    model = _quantise_graph(bundle.model, images, bundle.card.input.size)
    quantised_bundle = replace_model(bundle, model)
    quantised_bundle = replace(
        quantised_bundle, card=replace(quantised_bundle.card, precision="int8")
    )
    agreed = float(
        (_predict_classes(quantised_bundle, images) == _predict_classes(bundle, images)).mean()
    )
    if agreed < AGREED:
        raise BundleError(
            f"'{bundle.card.name}' does not bear eight bits: only {agreed:.1%} of {len(images)} "
            "images are predicted as before; keep it as it is"
        )
    return quantised_bundle


def _quantise_graph(model: bytes, images: ImageArray, size: int) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        folded, out = Path(folder) / "folded.onnx", Path(folder) / "int8.onnx"
        # Folds what is constant, half-precision weights among it.
        quant_pre_process(onnx.load_from_string(model), str(folded), skip_symbolic_shape=True)
        proto = onnx.load(folded)
        _keep_planes(proto.graph, size)
        quantize_static(
            proto,
            out,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"TensorQuantOverrides": _scales(proto.graph)},
            op_types_to_quantize=["Conv", "Add", "Clip", "Relu", "Sigmoid", "Mul"],
            nodes_to_exclude=_after_the_features(proto.graph),
        )
        return out.read_bytes()


def _keep_planes(graph: Any, size: int) -> None:
    """Has the images normalised as planes, (N,3,SS).

    onnxruntime's integer convolutions work on (N,S,S,3), to which it would turn the normalisation
    as well, and then compute it three values at a time: a fifth of the network's time.
    """
    from onnx import helper, numpy_helper

    first = next(index for index, node in enumerate(graph.node) if node.op_type == "Conv")
    subtract, divide = graph.node[first - 2], graph.node[first - 1]
    if (subtract.op_type, divide.op_type) != ("Sub", "Div"):
        raise BundleError("the network does not begin with a normalisation; export it again")
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in (subtract, divide):
        tensor = constants[node.input[1]]
        values = numpy_helper.to_array(tensor).reshape(1, 3, 1)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for name, shape in (("planes", [0, 3, size * size]), ("squares", [0, 3, size, size])):
        graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    flat = helper.make_node("Reshape", [subtract.input[0], "planes"], ["flat"])
    square = helper.make_node("Reshape", ["flat_normal", "squares"], [divide.output[0]])
    subtract.input[0], divide.output[0] = "flat", "flat_normal"
    graph.node.insert(first, square)
    graph.node.insert(first - 2, flat)
    del graph.value_info[:]  # their shapes have changed


def _scales(graph: Any) -> dict[str, list[dict[str, Any]]]:
    """Scales of the weights of convolutions, but for depthwise ones: one an output channel.

    Processors without VNNI instructions add up the products of two neighbours in sixteen bits,
    which overflow unless such weights are 128 together at most; the outputs are wrong there then.
    """
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    scales = {}
    for name in names:
        weight = numpy_helper.to_array(tensors[name])  # (out,in,h,w)
        if weight.shape[1] == 1:
            continue
        rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)  # as they are multiplied
        pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2).sum(2)
        largest = np.maximum(np.abs(rows).max(1), np.abs(pairs).max(1))
        scales[name] = [
            {
                "quant_type": QuantType.QInt8,
                "axis": 0,
                "scale": np.array(max(value / LARGEST, 1e-9), dtype=np.float32),
                "zero_point": np.array(0, dtype=np.int8),
            }
            for value in largest
        ]
    return scales


def _after_the_features(graph: Any) -> list[str]:
    """Nodes that come after the last feature map, or that lead to the texture."""
    makers = {name: node for node in graph.node for name in node.output}
    (maps,) = (node for node in graph.node if "class_map" in node.output)
    inside: set[str] = set()
    waiting = [maps.input[0]]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in inside:
            inside.add(node.name)
            waiting += node.input
    return [node.name for node in graph.node if node.name not in inside]


class _Reader:
    """Hands images (N,S,S,3) to the quantiser, batch by batch."""

    def __init__(self, images: ImageArray) -> None:
        starts = range(0, len(images), BATCH)
        self._batches: Iterator[dict[str, ImageArray]] = iter(
            [{"images": images[start : start + BATCH]} for start in starts]
        )

    def get_next(self) -> dict[str, ImageArray] | None:
        return next(self._batches, None)


def _predict_classes(bundle: Bundle, images: ImageArray) -> NDArray[np.intp]:
    """Class indices (N,) that a bundle's first network gives the images."""
    engine = Engine(bundle)
    starts = range(0, len(images), BATCH)
    batches = [engine.outputs(images[start : start + BATCH]).logits for start in starts]
    return np.asarray(np.concatenate(batches).argmax(axis=1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back the quantiser's advice on how to prepare a model, which has been followed."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
