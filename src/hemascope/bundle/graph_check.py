"""Checks a graph from a stranger before onnxruntime sees it: its operators and its sizes.

A graph may hold the operators that `export` and `calibrate --int8` write and no others. None of
them loops, reads a file or runs code. What is stored in the graph, and what each operator makes of
it, must be of a size that a model of cells can have.
"""

from __future__ import annotations

import math

from hemascope.bundle.graph import Constant, Graph, Node, read_graph
from hemascope.bundle.graph_shapes import RULES, infer_shapes
from hemascope.errors import BundleError

MODEL = "model.onnx"
DOMAINS = ("", "ai.onnx")
LARGEST = 2**28  # values in all constants together
LARGEST_TENSOR, LEAST_LARGEST = 2**10, 2**24  # values per pixel of an image, and per image
LARGEST_SUM = 2**14  # values per pixel in all tensors together; the shipped fallback makes 1,500
BATCHES = (1, 64)  # images; with several, what grows with the square of their number is found


def check_graph(model: bytes, size: int) -> None:
    """Raises BundleError for a graph, on images of `size` pixels, that is not safe to run."""
    try:
        graph = read_graph(model)
        for node in graph.nodes:
            _check_operator(node)
        constants = _check_constants(graph)
        for n in BATCHES:
            _check_sizes(graph, n, size, constants)
    except ValueError as error:
        raise BundleError(f"{MODEL} is refused: {error}; export the bundle again") from None


def _check_operator(node: Node) -> None:
    for name in node.op_types or [""]:
        if name not in RULES:
            raise ValueError(f"it holds the operator {name!r:.60}, which no export writes")
    for domain in node.domains:
        if domain not in DOMAINS:
            raise ValueError(f"it holds an operator of {domain!r:.60}, which no export writes")


def _check_sizes(graph: Graph, n: int, size: int, constants: int) -> None:
    """What the nodes make of N images, of constants of so many values."""
    most = max(LARGEST_TENSOR * size**2, LEAST_LARGEST) * n + constants
    most_together = max(LARGEST_SUM * size**2, LEAST_LARGEST) * n + 8 * constants
    total = 0
    for node, shape in infer_shapes(graph, (n, size, size, 3)):
        count = math.prod(shape)
        total += count
        if count > most or total > most_together:
            raise ValueError(
                f"a node {node.op_types[0]} makes {count:,} values of {n} images of {size} pixels, "
                "more than a model of cells needs"
            )


def _check_constants(graph: Graph) -> int:
    """How many values the constants have, which must lie in the file and not be too large."""
    stored = [constant for _, constant in graph.constants]
    stored += [constant for node in graph.nodes for constant in node.constants]
    total = 0
    for constant in stored:
        if constant.is_external:
            raise ValueError("it keeps numbers in another file")
        total += count_values(constant)
    if total > LARGEST:
        raise ValueError(f"its constants have {total:,} values; {LARGEST:,} are the most")
    return total


def count_values(constant: Constant) -> int:
    """How many values a constant says that it has. Raises ValueError for a negative side."""
    if min(constant.shape, default=0) < 0:
        raise ValueError("a constant has a side of negative length")
    count = math.prod(constant.shape)
    if count > 2 * constant.num_bytes:  # two values a byte are the most that any type has
        raise ValueError(f"a constant of {count:,} values is not in the file")
    return count
