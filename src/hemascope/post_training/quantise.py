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


def quantise(bundle: Bundle, images: ImageArray, least_agreement: float | None = None) -> Bundle:
    """The bundle with its convolutions in eight bits, their ranges taken from images (N,S,S,3).

    What follows the last feature map stays in single precision. The images must be like those to
    come; 256 are enough. It is no longer calibrated, and what was measured of it is left out.
    Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-
    only inference", CVPR 2018. Raises BundleError for one that is in eight bits already, and where
    a smaller share of the images than `least_agreement`, by default 99 %, is then predicted as
    before, as happens to networks that were not made for it.
    """
    if bundle.card.precision == "int8":
        raise BundleError(f"'{bundle.card.name}' computes in eight bits already")
    model = _quantise_graph(bundle.model, images)
    quantised_bundle = replace_model(bundle, model)
    quantised_bundle = replace(
        quantised_bundle, card=replace(quantised_bundle.card, precision="int8")
    )
    agreed = float(
        (_predict_classes(quantised_bundle, images) == _predict_classes(bundle, images)).mean()
    )
    if agreed < (AGREED if least_agreement is None else least_agreement):
        raise BundleError(
            f"'{bundle.card.name}' does not bear eight bits: only {agreed:.1%} of {len(images)} "
            "images are predicted as before; keep it as it is"
        )
    return quantised_bundle


def _quantise_graph(model: bytes, images: ImageArray) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        folded, out = Path(folder) / "folded.onnx", Path(folder) / "int8.onnx"
        # Folds what is constant, half-precision weights among it.
        quant_pre_process(onnx.load_from_string(model), str(folded), skip_symbolic_shape=True)
        proto = onnx.load(folded)
        _keep_planes(proto, images[:1])
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


def _keep_planes(proto: Any, image: ImageArray) -> None:
    """Has the images normalised as planes, (N,3,SS), by each member of an ensemble.

    onnxruntime's integer convolutions work on (N,S,S,3), to which it would turn the normalisation
    as well, and then compute it three values at a time: a fifth of the network's time. Raises
    BundleError for a graph without normalisation.
    """
    from onnx import helper, numpy_helper

    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    normalisations = _find_normalisations(graph, set(constants))
    if not normalisations:
        raise BundleError("the network does not begin with a normalisation; export it again")
    sides = _measure_sides(proto, [divide.output[0] for _, divide in normalisations], image)
    for number, ((subtract, divide), side) in enumerate(zip(normalisations, sides, strict=True)):
        for name in (subtract.input[1], divide.input[1]):
            values = numpy_helper.to_array(constants[name]).reshape(1, 3, 1)
            constants[name].CopyFrom(numpy_helper.from_array(values, name))
        planes, squares, flat, normal = (
            f"{word}.{number}" for word in ("planes", "squares", "flat", "flat_normal")
        )
        for name, shape in ((planes, [0, 3, side * side]), (squares, [0, 3, side, side])):
            graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
        first = list(graph.node).index(subtract)
        made = helper.make_node("Reshape", [subtract.input[0], planes], [flat])
        back = helper.make_node("Reshape", [normal, squares], [divide.output[0]])
        subtract.input[0], divide.output[0] = flat, normal
        graph.node.insert(list(graph.node).index(divide) + 1, back)
        graph.node.insert(first, made)
    del graph.value_info[:]  # their shapes have changed


def _find_normalisations(graph: Any, constants: set[str]) -> list[tuple[Any, Any]]:
    """The subtraction and the division by which each member normalises its images."""
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        if node.op_type != "Conv" or makers.get(node.input[0]) is None:
            continue
        divide = makers[node.input[0]]
        subtract = makers.get(divide.input[0]) if divide.op_type == "Div" else None
        if subtract is None or subtract.op_type != "Sub":
            continue
        if {subtract.input[1], divide.input[1]} <= constants:
            found.append((subtract, divide))
    return found


def _measure_sides(proto: Any, names: list[str], image: ImageArray) -> list[int]:
    """Sides of the squares with these names for one image (1,S,S,3): an enlarged one is wider."""
    import onnx
    import onnxruntime

    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # a warning about outputs of no type
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options)
    return [int(square.shape[-1]) for square in session.run(names, {"images": image})]


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
    """Nodes that come after the last feature maps, or that lead to the style statistics."""
    makers = {name: node for node in graph.node for name in node.output}
    made = makers["features"]
    means = [makers[name] for name in made.input] if made.op_type == "Concat" else [made]
    inside: set[str] = set()
    waiting = [mean.input[0] for mean in means]
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
