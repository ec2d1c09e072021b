"""The last layers inside a bundle's graph: read them, or replace them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray
from hemascope.bundle.bundle import Bundle, replace_model
from hemascope.bundle.graph import Graph, read_graph
from hemascope.bundle.graph_tensors import read_tensors, replace_tensors
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

    @property
    def widths(self) -> tuple[int, ...]:
        """How many features each member has."""
        return tuple(head.weight.shape[1] for head in self.members)

    def split_features(self, features: AnyFloatArray) -> list[AnyFloatArray]:
        """Features (N,ΣF) → the features (N,F) of each member."""
        return np.split(features, np.cumsum(self.widths)[:-1], axis=1)

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
    values, layers = _find_layers(bundle)
    return Heads(tuple(Head(values[names.weight], values[names.bias]) for names in layers))


def replace_heads(bundle: Bundle, heads: Heads) -> Bundle:
    """The bundle with other last layers, of as many classes or more, which its class maps use too.

    It is not calibrated, and its card has no metrics: both belonged to the old layers.
    """
    values, layers = _find_layers(bundle)
    new: dict[str, FloatArray] = {}
    for head, names in zip(heads.members, layers, strict=True):
        new |= {
            names.weight: head.weight,
            names.bias: head.bias,
            names.maps: head.weight[:, :, None, None],
        }
    num_classes = len(heads.members[0].bias)
    logits, _, class_map, _, members = bundle.card.outputs
    sides = {logits: {1: num_classes}, class_map: {1: num_classes}, members: {2: num_classes}}
    grown = num_classes != len(values[layers[0].bias])
    made = replace_model(bundle, replace_tensors(bundle.model, new, sides if grown else {}))
    card = replace(made.card, known_features=bundle.card.known_features)  # the same as before
    return replace(made, card=card)


def _find_layers(bundle: Bundle) -> tuple[dict[str, FloatArray], list[_LayerTensors]]:
    """The graph's tensors, and those of each member's last layer, in the order of the features."""
    try:
        graph, values = read_graph(bundle.model), read_tensors(bundle.model)
    except ValueError as error:
        raise BundleError(f"'{bundle.card.name}' cannot be read: {error}") from None
    features = bundle.card.outputs[1]
    (made,) = (node for node in graph.nodes if features in node.outputs)
    feature_names = made.inputs if made.op_types == ["Concat"] else [features]
    layers = {node.inputs[0]: node.inputs[1:] for node in graph.nodes if node.op_types == ["Gemm"]}
    if not set(feature_names) <= layers.keys():
        raise BundleError(f"'{bundle.card.name}' has no linear last layer that could be fitted")
    kernels = {
        _find_stored(graph, node.inputs[1]) for node in graph.nodes if node.op_types == ["Conv"]
    }
    convolutions = {name: values[name] for name in kernels & values.keys()}
    tensors = []
    for feature_name in feature_names:
        weight, bias = (_find_stored(graph, name) for name in layers[feature_name])
        maps = _find_map_kernel(values[weight], convolutions)
        tensors.append(_LayerTensors(weight, bias, maps))
    return values, tensors


def _find_map_kernel(weight: FloatArray, kernels: dict[str, FloatArray]) -> str:
    """The 1×1 kernel with the same weights (C,F), which computes the class maps."""
    wanted = weight[:, :, None, None]
    (kernel,) = (name for name, values in kernels.items() if np.array_equal(values, wanted))
    return kernel


def _find_stored(graph: Graph, name: str) -> str:
    """The tensor that is stored under or behind a name: one in half precision has a Cast node."""
    widened = {node.outputs[0]: node.inputs[0] for node in graph.nodes if node.op_types == ["Cast"]}
    return widened.get(name, name)
