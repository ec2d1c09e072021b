"""Records ↔ JSON; arrays within it, or apart from it by their names."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeVar, get_origin

import msgspec
import numpy as np

from hemascope.arrays import Float32Array

T = TypeVar("T")


def to_json(value: object) -> bytes:
    """A dataclass as indented UTF-8 JSON. Floats keep every digit, those of arrays six or seven.

    An array is written as its shape and its single-precision values in base 64.
    """
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_encode), indent=2) + b"\n"


def split_arrays(value: object) -> tuple[dict[str, Any], dict[str, Float32Array]]:
    """A dataclass as a tree that `to_json` takes, and its arrays by their names.

    In the tree an array is its shape and its name, such as uncertainty.ood_detector.style.means.
    """
    found: list[Float32Array] = []

    def set_apart(array: Any) -> dict[str, Any]:
        found.append(np.ascontiguousarray(array, dtype="<f4"))
        return {"shape": array.shape, "tensor": len(found) - 1}

    tree = msgspec.to_builtins(value, enc_hook=set_apart)
    arrays = {}
    for name, node in _tensors_in(tree, ""):
        arrays[name] = found[node["tensor"]]
        node["tensor"] = name
    return tree, arrays


def _tensors_in(tree: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes of a tree that stand for arrays, with their names."""
    if isinstance(tree, dict):
        if tree.keys() == {"shape", "tensor"}:
            yield name, tree
            return
        for key, node in tree.items():
            yield from _tensors_in(node, f"{name}.{key}".removeprefix("."))
    elif isinstance(tree, list | tuple):
        for number, node in enumerate(tree):
            yield from _tensors_in(node, f"{name}.{number}")


def from_json(
    text: bytes | str, kind: type[T], arrays: Mapping[str, Float32Array] | None = None
) -> T:
    """The dataclass that `to_json` wrote, with the arrays that `split_arrays` set apart.

    Raises ValueError that says what does not fit.
    """
    try:
        return msgspec.json.decode(text, type=kind, dec_hook=partial(_decode, arrays or {}))
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a valid {kind.__name__}: {error}") from None


def from_strings(values: Mapping[str, str | None], kind: type[T]) -> T:
    """The dataclass with these fields, read from text. Raises ValueError for what does not fit."""
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a valid {kind.__name__}: {error}") from None


def _encode(value: Any) -> dict[str, Any]:
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value, dtype="<f4").tobytes()
        return {"shape": value.shape, "float32": base64.b64encode(content).decode()}
    raise NotImplementedError(f"{type(value).__name__} has no place in a result")


def _decode(arrays: Mapping[str, Float32Array], kind: Any, value: Any) -> Any:
    if (get_origin(kind) or kind) is not np.ndarray:
        raise NotImplementedError(f"{kind} has no place in a result")
    if isinstance(value, dict) and "tensor" in value:
        tensor = value["tensor"]
        array = arrays.get(tensor) if isinstance(tensor, str) else None
        if array is None or list(array.shape) != value.get("shape"):
            raise ValueError(f"the array {tensor} is missing, or of another shape")
        return array.astype(np.float64)
    try:
        if min(value["shape"], default=0) < 0:
            raise ValueError
        content = np.frombuffer(base64.b64decode(value["float32"], validate=True), "<f4")
        return content.astype(np.float64).reshape(value["shape"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("an array needs a shape and that many values") from None
