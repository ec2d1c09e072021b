"""The last layers inside a bundle's graph: read them, or replace them. Needs onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray
from hemascope.bundle.bundle import Bundle, replace_model
from hemascope.errors import BundleError


@dataclass(frozen=True)
class Head:
    """A linear layer, features (N,F) → logits (N,C): `weight` (C,F), `bias` (C,)."""

    weight: FloatArray
    bias: FloatArray

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Heads:
    """The last layers of M members: their features side by side (N,ΣF) → mean logits (N,C)."""

    members: tuple[Head, ...]

    def split_features(self, features: AnyFloatArray) -> list[AnyFloatArray]:
        """Features (N,ΣF) → the features (N,F) of each member."""
        ends = np.cumsum([head.weight.shape[1] for head in self.members])
        return np.split(features, ends[:-1], axis=1)

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        pairs = zip(self.members, self.split_features(features), strict=True)
        return np.asarray(np.mean([head(own_features) for head, own_features in pairs], axis=0))


class _LayerTensors(NamedTuple):
    """Names of the tensors of one member's last layer; `maps` is the kernel of its class maps."""

    weight: str
    bias: str
    maps: str


def read_heads(bundle: Bundle) -> Heads:
    """The last layers, one per member. Raises BundleError for a graph without linear ones.

    They are of all the graph's classes, also where the card chooses some.
    """
    graph = _load(bundle).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    tensors = _find_layers(graph, bundle.card.name)
    return Heads(tuple(Head(_values(values[p.weight]), _values(values[p.bias])) for p in tensors))


def replace_heads(bundle: Bundle, heads: Heads) -> Bundle:
    """The bundle with other last layers, which its class maps use as well.

    It is not calibrated, and its card has no metrics: both belonged to the old layers.
    """
    import onnx

    proto = _load(bundle)
    new: dict[str, Any] = {}
    for head, tensors in zip(
        heads.members, _find_layers(proto.graph, bundle.card.name), strict=True
    ):
        new |= {
            tensors.weight: head.weight,
            tensors.bias: head.bias,
            tensors.maps: head.weight[:, :, None, None],
        }
    for tensor in proto.graph.initializer:
        if tensor.name in new:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(new[tensor.name].astype(kind), tensor.name)
            )
    return replace_model(bundle, bytes(proto.SerializeToString()))


def _load(bundle: Bundle) -> Any:
    import onnx

    return onnx.load_from_string(bundle.model)


def _find_layers(graph: Any, title: str) -> list[_LayerTensors]:
    """The tensors of each member's last layer, in the order of the features."""
    (made,) = (node for node in graph.node if "features" in node.output)
    feature_names = made.input if made.op_type == "Concat" else ["features"]
    layers = {node.input[0]: node.input[1:] for node in graph.node if node.op_type == "Gemm"}
    if not set(feature_names) <= layers.keys():
        raise BundleError(f"'{title}' has no linear last layer that could be fitted")
    values = {tensor.name: tensor for tensor in graph.initializer}
    kernels = {_find_stored(graph, node.input[1]) for node in graph.node if node.op_type == "Conv"}
    convolutions = {name: values[name] for name in kernels & values.keys()}
    tensors = []
    for feature_name in feature_names:
        weight, bias = (_find_stored(graph, name) for name in layers[feature_name])
        tensors.append(
            _LayerTensors(weight, bias, _find_map_kernel(_values(values[weight]), convolutions))
        )
    return tensors


def _find_map_kernel(weight: Any, kernels: dict[str, Any]) -> str:
    """The 1×1 kernel with the same weights (C,F), which computes the class maps."""
    wanted = weight[:, :, None, None]
    (kernel,) = (
        name
        for name, tensor in kernels.items()
        if tuple(tensor.dims) == wanted.shape and np.array_equal(_values(tensor), wanted)
    )
    return kernel


def _find_stored(graph: Any, name: str) -> str:
    """The tensor that is stored under or behind a name: one in half precision has a Cast node."""
    widened = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    return str(widened.get(name, name))


def _values(tensor: Any) -> Any:
    import onnx

    return np.asarray(onnx.numpy_helper.to_array(tensor), dtype=np.float64)
