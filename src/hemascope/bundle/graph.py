"""Reads what must be known of an ONNX graph before it is run: its nodes, and its constants' shapes.

The numbers of the fields are those of onnx.proto; a field of another type than there is left out,
as it is by every reader. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from hemascope.bundle.protobuf import MessageReader

GRAPH, TRAINING, FUNCTIONS = 7, 20, 25  # of a model
NODE, INITIALIZER, SPARSE = 1, 5, 15  # of a graph
INPUTS, OUTPUTS, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7  # of a node
NAME, INTEGER, TEXT, TENSOR, INTEGERS, TENSORS = 1, 3, 4, 5, 8, 10  # of an attribute
NESTED = (6, 11, 22, 23)  # graphs and sparse tensors in an attribute
DIMS, DATA_TYPE, INT64S, TENSOR_NAME, RAW, EXTERNAL, LOCATION = 1, 2, 7, 8, 9, 13, 14
INT64, FLOAT32 = 7, 1  # types of data
SMALL = 64  # values; those of larger constants are not looked at


@dataclass
class Constant:
    """A tensor that is stored in the graph; `values` are those of a small one."""

    shape: tuple[int, ...]
    num_bytes: int  # that the file has of it, at least
    is_external: bool = False
    values: list[float] | None = None


@dataclass
class Node:
    """One operation: what it is, the tensors that it takes and makes, and its settings."""

    op_types: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    integers: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    constants: list[Constant] = field(default_factory=list)


@dataclass
class Graph:
    """The nodes of a model, in order, and its constants by their names."""

    nodes: list[Node] = field(default_factory=list)
    constants: list[tuple[str, Constant]] = field(default_factory=list)


def read_graph(model: bytes) -> Graph:
    """The graph of a model.

    Raises ValueError for bytes that are no model, and for a model with graphs inside nodes, sparse
    tensors, functions or training steps.
    """
    reader, graph = MessageReader(), Graph()
    for number, value in reader.fields(memoryview(model)):
        if number in (TRAINING, FUNCTIONS):
            raise ValueError("it holds functions or training steps")
        if number == GRAPH and isinstance(value, memoryview):
            _read_into(reader, value, graph)  # protobuf joins a field that is there several times
    if not graph.nodes:
        raise ValueError("it is damaged")
    return graph


def _read_into(reader: MessageReader, message: memoryview, graph: Graph) -> None:
    for number, value in _messages(reader, message):
        if number == NODE:
            graph.nodes.append(_read_node(reader, value))
        elif number == INITIALIZER:
            graph.constants.append(_read_tensor(reader, value))
        elif number == SPARSE:
            raise ValueError("it holds sparse tensors")


def _read_node(reader: MessageReader, message: memoryview) -> Node:
    node = Node()
    texts = {
        INPUTS: node.inputs,
        OUTPUTS: node.outputs,
        OP_TYPE: node.op_types,
        DOMAIN: node.domains,
    }
    for number, value in _messages(reader, message):
        if number in texts:
            texts[number].append(_text(value))
        elif number == ATTRIBUTE:
            _read_attribute(reader, value, node)
    return node


def _read_attribute(reader: MessageReader, message: memoryview, node: Node) -> None:
    name, text, integers = "", "", list[int]()
    for number, value in reader.fields(message):
        if number in NESTED:
            raise ValueError("it holds graphs inside nodes, or sparse tensors")
        if number in (INTEGER, INTEGERS):
            integers += reader.integers(value)
        elif isinstance(value, memoryview):
            if number == NAME:
                name = _text(value)
            elif number == TEXT:
                text = _text(value)
            elif number in (TENSOR, TENSORS):
                node.constants.append(_read_tensor(reader, value)[1])
    node.integers[name], node.texts[name] = integers, text


def _read_tensor(reader: MessageReader, message: memoryview) -> tuple[str, Constant]:
    name, data_type, raw = "", 0, b""
    shape: list[int] = []
    integers: list[float] = []
    is_external = False
    for number, value in reader.fields(message):
        if number == DIMS:
            shape += reader.integers(value)
        elif number == DATA_TYPE and isinstance(value, int):
            data_type = value
        elif number == INT64S and not (isinstance(value, memoryview) and len(value) > 10 * SMALL):
            integers += reader.integers(value)
        elif number == TENSOR_NAME and isinstance(value, memoryview):
            name = _text(value)
        elif number == RAW and isinstance(value, memoryview):
            raw = bytes(value[: 8 * SMALL + 1])
        elif number in (EXTERNAL, LOCATION):
            is_external = is_external or number == EXTERNAL or bool(value)
    values: list[float] | None = integers or None
    kind = {INT64: "q", FLOAT32: "f"}.get(data_type)
    if kind and raw and len(raw) % struct.calcsize(kind) == 0 and len(raw) <= 8 * SMALL:
        values = list(struct.unpack(f"<{len(raw) // struct.calcsize(kind)}{kind}", raw))
    return name, Constant(tuple(shape), len(message), is_external, values)


def _messages(reader: MessageReader, message: memoryview) -> Iterator[tuple[int, memoryview]]:
    for number, value in reader.fields(message):
        if isinstance(value, memoryview):
            yield number, value


def _text(value: memoryview) -> str:
    return bytes(value[:1000]).decode("utf-8", "replace")
