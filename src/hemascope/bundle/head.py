"""The last layer inside a bundle's graph: read it, or put another in its place. Needs onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

from hemascope.bundle.bundle import Bundle, BundleError, with_model
from hemascope.scoring.adaptation import Head


def read_head(bundle: Bundle) -> Head:
    """The layer from `features` to `logits`. Raises BundleError for a graph without just one."""
    graph = _load(bundle).graph
    weight, bias = _names(graph, bundle.card.name)
    values = {tensor.name: tensor for tensor in graph.initializer}
    return Head(_values(values[weight]), _values(values[bias]))


def with_head(bundle: Bundle, head: Head) -> Bundle:
    """The bundle with another last layer, in its class maps too.

    It is no longer calibrated, and what was measured of the old one is left out.
    """
    import onnx

    proto = _load(bundle)
    graph = proto.graph
    weight, bias = _names(graph, bundle.card.name)
    (maps,) = (node for node in graph.node if "class_map" in node.output)
    new = {
        weight: head.weight,
        bias: head.bias,
        _stored(graph, maps.input[1]): head.weight[:, :, None, None],
    }
    for tensor in graph.initializer:
        if tensor.name in new:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(new[tensor.name].astype(kind), tensor.name)
            )
    return with_model(bundle, bytes(proto.SerializeToString()))


def _load(bundle: Bundle) -> Any:
    import onnx

    return onnx.load_from_string(bundle.model)


def _names(graph: Any, title: str) -> tuple[str, str]:
    """Of the last layer's weight and bias."""
    last = [node for node in graph.node if "logits" in node.output]
    if [node.op_type for node in last] != ["Gemm"] or last[0].input[0] != "features":
        raise BundleError(
            f"'{title}' has no single last layer that could be fitted, as an ensemble has not; "
            "take a bundle of one network"
        )
    weight, bias = last[0].input[1:]
    return _stored(graph, weight), _stored(graph, bias)


def _stored(graph: Any, name: str) -> str:
    """The tensor in the file: behind a node, where it is kept in half precision."""
    widened = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    return str(widened.get(name, name))


def _values(tensor: Any) -> Any:
    import onnx

    return np.asarray(onnx.numpy_helper.to_array(tensor), dtype=np.float64)
