"""Checks a graph from a stranger before onnxruntime sees it: its operators and its sizes.

A graph may hold the operators that `export` and `calibrate --int8` write and no others. None of
them loops, reads a file or runs code. What is stored in the graph, and what each operator makes of
it, must be of a size that a model of cells can have.
"""

from __future__ import annotations

import math

from hemascope.bundle.graph import Constant, Graph, Node, read_graph
from hemascope.errors import BundleError

MODEL = "model.onnx"
OPERATORS = {
    *("Add", "AveragePool", "Cast", "Clip", "Concat", "Constant", "Conv"),
    *("DequantizeLinear", "Div", "Exp", "Flatten", "Gather", "Gemm", "Greater"),
    *("Identity", "Log", "MatMul", "MaxPool", "Mul", "Neg", "QuantizeLinear"),
    *("ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape", "Sigmoid"),
    *("Slice", "Sqrt", "Sub", "TopK", "Transpose", "Unsqueeze"),
}
DOMAINS = ("", "ai.onnx")
LARGEST = 2**28  # values in one tensor, for one image; also in all constants together


def check_graph(model: bytes, size: int) -> None:
    """Raises BundleError for a graph, on images of `size` pixels, that is not safe to run."""
    try:
        graph = read_graph(model)
        for node in graph.nodes:
            _check_operator(node)
        _check_constants(graph)
    except ValueError as error:
        raise BundleError(f"{MODEL} is refused: {error}; export the bundle again") from None


def _check_operator(node: Node) -> None:
    for name in node.op_types or [""]:
        if name not in OPERATORS:
            raise ValueError(f"it holds the operator {name!r:.60}, which no export writes")
    for domain in node.domains:
        if domain not in DOMAINS:
            raise ValueError(f"it holds an operator of {domain!r:.60}, which no export writes")


def _check_constants(graph: Graph) -> None:
    """The constants of the graph and of its nodes, which lie in the file and are not too large."""
    stored = [constant for _, constant in graph.constants]
    stored += [constant for node in graph.nodes for constant in node.constants]
    total = 0
    for constant in stored:
        if constant.is_external:
            raise ValueError("it keeps numbers in another file")
        total += count_values(constant)
    if total > LARGEST:
        raise ValueError(f"its constants have {total:,} values; {LARGEST:,} are the most")


def count_values(constant: Constant) -> int:
    """How many values a constant says that it has. Raises ValueError for a negative side."""
    if min(constant.shape, default=0) < 0:
        raise ValueError("a constant has a side of negative length")
    count = math.prod(constant.shape)
    if count > 2 * constant.num_bytes:  # two values a byte are the most that any type has
        raise ValueError(f"a constant of {count:,} values is not in the file")
    return count
