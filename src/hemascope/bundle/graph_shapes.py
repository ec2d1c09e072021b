"""The shape of every tensor that a graph makes, worked out without running it.

Where an operator's output depends on the values of another tensor, as that of Reshape does, these
must follow from constants and shapes alone. https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from hemascope.bundle.graph import SMALL, Graph, Node

Shape = tuple[int, ...]


class Known(NamedTuple):
    """What is known of a tensor: its shape, and its values if they are few and follow from shapes.

    `values` are those of a tensor of at most one axis.
    """

    shape: Shape
    values: list[float] | None = None

    def integers(self) -> list[int]:
        if self.values is None:
            raise ValueError
        return [int(value) for value in self.values]


def infer_shapes(graph: Graph, images: Shape) -> Iterator[tuple[Node, Shape]]:
    """Each node and the shape of what it makes of `images` (N,S,S,3).

    Raises ValueError where a shape does not follow from the graph.
    """
    known = {"images": Known(images)}
    known |= {name: Known(found.shape, found.values) for name, found in graph.constants}
    for node in graph.nodes:
        op_type = node.op_types[0]
        try:
            inputs = [known[name] if name else None for name in node.inputs]
            made = RULES[op_type](node, inputs)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            raise ValueError(f"the size of what a node {op_type} makes is not known") from None
        if min(made.shape, default=0) < 0:
            raise ValueError(f"a node {op_type} makes a side of negative length")
        if made.values is not None and len(made.values) > SMALL:
            made = Known(made.shape)
        known |= dict.fromkeys(node.outputs, made)
        yield node, made.shape


Inputs = Sequence[Known | None]


def _same(node: Node, inputs: Inputs) -> Known:
    return _first(inputs)


def _constant(node: Node, inputs: Inputs) -> Known:
    return Known(node.constants[0].shape, node.constants[0].values)


def _broadcast(node: Node, inputs: Inputs) -> Known:
    return Known(_broadcast_shapes(_first(inputs).shape, _second(inputs).shape))


def _broadcast_shapes(one: Shape, other: Shape) -> Shape:
    pairs = zip_longest(reversed(one), reversed(other), fillvalue=1)
    return tuple(max(pair) if min(pair) else 0 for pair in pairs)[::-1]


def _convolve(node: Node, inputs: Inputs) -> Known:
    maps, weight = _first(inputs).shape, _second(inputs).shape
    return Known((maps[0], weight[0], *_slide(node, maps[2:], weight[2:])))


def _pool(node: Node, inputs: Inputs) -> Known:
    maps = _first(inputs).shape
    return Known((*maps[:2], *_slide(node, maps[2:], node.integers["kernel_shape"])))


def _slide(node: Node, sides: Shape, kernel: Sequence[int]) -> Iterator[int]:
    """The sides of maps over which a kernel has slid."""
    if node.texts.get("auto_pad", "NOTSET") != "NOTSET":
        raise ValueError
    ones = [1] * len(sides)
    pads = node.integers.get("pads", [0] * 2 * len(sides))
    strides = node.integers.get("strides", ones)
    dilations = node.integers.get("dilations", ones)
    rounding = strides if any(node.integers.get("ceil_mode", ())) else ones
    starts, ends = pads[: len(sides)], pads[len(sides) :]
    numbers = (sides, kernel, starts, ends, strides, dilations, rounding)
    for side, width, start, end, stride, dilation, over in zip(*numbers, strict=True):
        if min(stride, dilation, width) < 1 or min(start, end) < 0:
            raise ValueError
        yield max(0, (side + start + end - dilation * (width - 1) - 1 + over - 1) // stride + 1)


def _gemm(node: Node, inputs: Inputs) -> Known:
    one, other = _first(inputs).shape, _second(inputs).shape
    rows = one[1 if any(node.integers.get("transA", ())) else 0]
    return Known((rows, other[0 if any(node.integers.get("transB", ())) else 1]))


def _multiply(node: Node, inputs: Inputs) -> Known:
    one, other = _first(inputs).shape, _second(inputs).shape
    return Known((*_broadcast_shapes(one[:-2], other[:-2]), one[-2], other[-1]))


def _concat(node: Node, inputs: Inputs) -> Known:
    (axis,) = node.integers["axis"]
    parts = [_of(inputs, index) for index in range(len(inputs))]
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    lists = [part.values for part in parts if part.values is not None]
    values = [value for inner in lists for value in inner]
    return Known(tuple(shape), values if len(lists) == len(parts) and len(shape) == 1 else None)


def _reshape(node: Node, inputs: Inputs) -> Known:
    shape, wanted = _first(inputs).shape, _second(inputs).integers()
    keeps_zeros = any(node.integers.get("allowzero", ()))
    sides = [
        shape[axis] if side == 0 and not keeps_zeros else side for axis, side in enumerate(wanted)
    ]
    if -1 in sides:
        sides[sides.index(-1)] = math.prod(shape) // -math.prod(sides)
    if math.prod(sides) != math.prod(shape):
        raise ValueError
    return Known(tuple(sides))


def _resize(node: Node, inputs: Inputs) -> Known:
    if (
        node.texts.get("keep_aspect_ratio_policy", "stretch") != "stretch"
        or "axes" in node.integers
    ):
        raise ValueError
    shape = _first(inputs).shape
    if len(inputs) > 3 and inputs[3] is not None:
        return Known(tuple(_of(inputs, 3).integers()))
    scales = _of(inputs, 2).values or []
    return Known(tuple(int(side * scale) for side, scale in zip(shape, scales, strict=True)))


def _transpose(node: Node, inputs: Inputs) -> Known:
    shape = _first(inputs).shape
    order = node.integers.get("perm", list(range(len(shape)))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise ValueError
    return Known(tuple(shape[axis] for axis in order))


def _unsqueeze(node: Node, inputs: Inputs) -> Known:
    first, axes = _first(inputs), _second(inputs).integers()
    rank = len(first.shape) + len(axes)
    new, old = {axis % rank for axis in axes}, iter(first.shape)
    shape = tuple(1 if axis in new else next(old) for axis in range(rank))
    return Known(shape, first.values if rank == 1 else None)


def _flatten(node: Node, inputs: Inputs) -> Known:
    shape = _first(inputs).shape
    (axis,) = node.integers.get("axis", [1])
    return Known((math.prod(shape[:axis]), math.prod(shape[axis:])))


def _reduce(node: Node, inputs: Inputs) -> Known:
    shape = _first(inputs).shape
    axes = {axis % len(shape) for axis in _second(inputs).integers()}
    keeps = node.integers.get("keepdims", [1]) == [1]
    sides = [1 if axis in axes else side for axis, side in enumerate(shape)]
    return Known(tuple(s for axis, s in enumerate(sides) if keeps or axis not in axes))


def _shape(node: Node, inputs: Inputs) -> Known:
    shape = _first(inputs).shape
    (start,), (end,) = node.integers.get("start", [0]), node.integers.get("end", [len(shape)])
    values: list[float] = [*shape[start:end]]
    return Known((len(values),), values)


def _slice(node: Node, inputs: Inputs) -> Known:
    first = _first(inputs)
    starts, ends = _second(inputs).integers(), _of(inputs, 2).integers()
    has_axes, has_steps = len(inputs) > 3 and inputs[3], len(inputs) > 4 and inputs[4]
    axes = _of(inputs, 3).integers() if has_axes else list(range(len(starts)))
    steps = _of(inputs, 4).integers() if has_steps else [1] * len(starts)
    shape, values = list(first.shape), first.values
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        part = slice(start, end if step > 0 or end >= -shape[axis] else None, step)
        values = values[part] if values is not None and len(shape) == 1 else None
        shape[axis] = len(range(*part.indices(shape[axis])))
    return Known(tuple(shape), values)


def _gather(node: Node, inputs: Inputs) -> Known:
    first, indices = _first(inputs), _second(inputs)
    axis = node.integers.get("axis", [0])[0] % len(first.shape)
    shape = (*first.shape[:axis], *indices.shape, *first.shape[axis + 1 :])
    if first.values is None or indices.values is None or len(shape) > 1:
        return Known(shape)
    return Known(shape, [first.values[index] for index in indices.integers()])


def _top(node: Node, inputs: Inputs) -> Known:
    shape, (most,) = list(_first(inputs).shape), _second(inputs).integers()
    shape[node.integers.get("axis", [-1])[0]] = most
    return Known(tuple(shape))


def _map(node: Node, inputs: Inputs) -> Known:
    return Known(_first(inputs).shape)


def _of(inputs: Inputs, index: int) -> Known:
    found = inputs[index]
    if found is None:
        raise ValueError
    return found


def _first(inputs: Inputs) -> Known:
    return _of(inputs, 0)


def _second(inputs: Inputs) -> Known:
    return _of(inputs, 1)


RULES: dict[str, Callable[[Node, Inputs], Known]] = {
    **dict.fromkeys(("Cast", "Identity"), _same),
    **dict.fromkeys(("Clip", "Exp", "Log", "Neg", "Relu", "Sigmoid", "Sqrt"), _map),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _map),
    **dict.fromkeys(("Add", "Div", "Greater", "Mul", "Sub"), _broadcast),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduce),
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _convolve,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _multiply,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "TopK": _top,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Each operator that a graph may hold, and what it makes of its inputs."""
