"""The last layers inside a bundle's graph: read them, or put others there. Needs onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray
from hemascope.bundle.bundle import Bundle, BundleError, with_model


@dataclass(frozen=True)
class Head:
    """A linear layer, features (N,F) → logits (N,C): `weight` (C,F), `bias` (C,)."""

    weight: FloatArray
    bias: FloatArray

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Heads:
    """The layers of M members, whose features stand side by side: (N,ΣF) → mean logits (N,C)."""

    members: tuple[Head, ...]

    def parts(self, features: AnyFloatArray) -> list[AnyFloatArray]:
        """Features (N,ΣF), of each member its own (N,F)."""
        ends = np.cumsum([head.weight.shape[1] for head in self.members])
        return np.split(features, ends[:-1], axis=1)

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        pairs = zip(self.members, self.parts(features), strict=True)
        return np.asarray(np.mean([head(part) for head, part in pairs], axis=0))


class _Place(NamedTuple):
    """The tensors in the file that hold one member's last layer, `maps` that of its class maps."""

    weight: str
    bias: str
    maps: str


def read_heads(bundle: Bundle) -> Heads:
    """The layers from `features` to `logits`, one a member. Raises BundleError without them."""
    graph = _load(bundle).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    places = _places(graph, bundle.card.name)
    return Heads(tuple(Head(_values(values[p.weight]), _values(values[p.bias])) for p in places))


def with_heads(bundle: Bundle, heads: Heads) -> Bundle:
    """The bundle with other last layers, in its class maps too.

    It is no longer calibrated, and what was measured of the old ones is left out.
    """
    import onnx

    proto = _load(bundle)
    new: dict[str, Any] = {}
    for head, place in zip(heads.members, _places(proto.graph, bundle.card.name), strict=True):
        new |= {
            place.weight: head.weight,
            place.bias: head.bias,
            place.maps: head.weight[:, :, None, None],
        }
    for tensor in proto.graph.initializer:
        if tensor.name in new:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(new[tensor.name].astype(kind), tensor.name)
            )
    return with_model(bundle, bytes(proto.SerializeToString()))


def _load(bundle: Bundle) -> Any:
    import onnx

    return onnx.load_from_string(bundle.model)


def _places(graph: Any, title: str) -> list[_Place]:
    """Of each member's layer, in the order of their features."""
    (made,) = (node for node in graph.node if "features" in node.output)
    parts = made.input if made.op_type == "Concat" else ["features"]
    layers = {node.input[0]: node.input[1:] for node in graph.node if node.op_type == "Gemm"}
    if not set(parts) <= layers.keys():
        raise BundleError(f"'{title}' has no linear last layer that could be fitted")
    values = {tensor.name: tensor for tensor in graph.initializer}
    kernels = {_stored(graph, node.input[1]) for node in graph.node if node.op_type == "Conv"}
    convolutions = {name: values[name] for name in kernels & values.keys()}
    places = []
    for part in parts:
        weight, bias = (_stored(graph, name) for name in layers[part])
        places.append(_Place(weight, bias, _of_maps(_values(values[weight]), convolutions)))
    return places


def _of_maps(weight: Any, kernels: dict[str, Any]) -> str:
    """The kernel of one place that has the same weights (C,F)."""
    wanted = weight[:, :, None, None]
    (found,) = (
        name
        for name, tensor in kernels.items()
        if tuple(tensor.dims) == wanted.shape and np.array_equal(_values(tensor), wanted)
    )
    return found


def _stored(graph: Any, name: str) -> str:
    """The tensor in the file: behind a node, where it is kept in half precision."""
    widened = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    return str(widened.get(name, name))


def _values(tensor: Any) -> Any:
    import onnx

    return np.asarray(onnx.numpy_helper.to_array(tensor), dtype=np.float64)
