"""Reads the numbers that are stored in an ONNX graph, and puts others in their place.

The package `onnx` is not needed. The numbers of the fields are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hemascope.arrays import FloatArray
from hemascope.bundle.graph import (
    DATA_TYPE,
    DIMS,
    GRAPH,
    INITIALIZER,
    RAW,
    TENSOR_NAME,
)
from hemascope.bundle.protobuf import MessageReader, write_bytes, write_integer

OUTPUT, VALUE_INFO = 12, 13  # of a graph
FLOAT_DATA, DOUBLE_DATA = 4, 10  # of a tensor
TYPES: dict[int, np.dtype[np.floating]] = {
    1: np.dtype("<f4"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}
VALUE_NAME, VALUE_TYPE, TENSOR_TYPE, ELEMENT_TYPE, SHAPE, DIMENSION = 1, 2, 1, 1, 2, 1
DIMENSION_VALUE = 1


def read_tensors(model: bytes) -> dict[str, FloatArray]:
    """The stored tensors of floating point numbers by their names, in double precision.

    Raises ValueError for bytes that are no model.
    """
    reader, found = MessageReader(), {}
    for number, graph in reader.fields(memoryview(model)):
        if number != GRAPH or isinstance(graph, int):
            continue
        for part, content in reader.fields(graph):
            if part == INITIALIZER and not isinstance(content, int):
                name, values = _read_tensor(reader, content)
                if values is not None:
                    found[name] = values.astype(np.float64)
    return found


def replace_tensors(
    model: bytes, tensors: Mapping[str, FloatArray], sides: Mapping[str, Mapping[int, int]]
) -> bytes:
    """The model with other values, and perhaps shapes, of stored tensors; their types stay.

    `sides` says of which outputs which side changes its length. What the graph notes of the shapes
    inside is left out then. Raises ValueError for bytes that are no model.
    """
    reader, parts = MessageReader(), []
    for number, content, whole in reader.spans(memoryview(model)):
        if number == GRAPH and not isinstance(content, int):
            parts.append(write_bytes(GRAPH, _replace_in_graph(reader, content, tensors, sides)))
        else:
            parts.append(bytes(whole))
    return b"".join(parts)


def _replace_in_graph(
    reader: MessageReader,
    graph: memoryview,
    tensors: Mapping[str, FloatArray],
    sides: Mapping[str, Mapping[int, int]],
) -> bytes:
    parts = []
    for number, content, whole in reader.spans(graph):
        new = bytes(whole)
        if number == INITIALIZER and not isinstance(content, int):
            name, old = _read_tensor(reader, content)
            if name in tensors and old is not None:
                new = write_bytes(INITIALIZER, _write_tensor(name, tensors[name], old.dtype))
        elif number == VALUE_INFO and sides:
            new = b""
        elif number == OUTPUT and not isinstance(content, int):
            new = write_bytes(OUTPUT, _replace_sides(reader, content, sides))
        parts.append(new)
    return b"".join(parts)


def _read_tensor(
    reader: MessageReader, message: memoryview
) -> tuple[str, NDArray[np.floating] | None]:
    """A tensor's name, and its values if they are floating point numbers that lie in the file."""
    name, kind, values = "", 0, b""
    shape: list[int] = []
    for number, value in reader.fields(message):
        if number == DIMS:
            shape += reader.integers(value)
        elif number == DATA_TYPE and isinstance(value, int):
            kind = value
        elif not isinstance(value, int):
            if number == TENSOR_NAME:
                name = bytes(value).decode("utf-8", "replace")
            elif number in (RAW, FLOAT_DATA, DOUBLE_DATA):
                values += bytes(value)
    if kind not in TYPES or len(values) != TYPES[kind].itemsize * np.prod(shape, dtype=np.int64):
        return name, None
    return name, np.frombuffer(values, TYPES[kind]).reshape(shape)


def _write_tensor(name: str, values: FloatArray, dtype: np.dtype[np.floating]) -> bytes:
    kind = next(kind for kind, known in TYPES.items() if known == dtype)
    content = np.ascontiguousarray(values, dtype=TYPES[kind]).tobytes()
    dims = b"".join(write_integer(DIMS, side) for side in values.shape)
    named = write_bytes(TENSOR_NAME, name.encode())
    return dims + write_integer(DATA_TYPE, kind) + named + write_bytes(RAW, content)


def _replace_sides(
    reader: MessageReader, output: memoryview, sides: Mapping[str, Mapping[int, int]]
) -> bytes:
    """An output of the graph with other lengths of some of its sides."""
    names = (value for number, value in reader.fields(output) if number == VALUE_NAME)
    name = bytes(next((value for value in names if not isinstance(value, int)), b"")).decode()
    if name not in sides:
        return bytes(output)
    return _replace_dimensions(reader, output, (VALUE_TYPE, TENSOR_TYPE, SHAPE), dict(sides[name]))


def _replace_dimensions(
    reader: MessageReader, message: memoryview, path: tuple[int, ...], sides: Mapping[int, int]
) -> bytes:
    """The message with dimensions replaced in the message that a path of fields leads to."""
    parts, place = [], -1
    for number, content, whole in reader.spans(message):
        new = bytes(whole)
        if path and number == path[0] and not isinstance(content, int):
            new = write_bytes(number, _replace_dimensions(reader, content, path[1:], sides))
        elif not path and number == DIMENSION:
            place += 1
            if place in sides:
                new = write_bytes(DIMENSION, write_integer(DIMENSION_VALUE, sides[place]))
        parts.append(new)
    return b"".join(parts)
