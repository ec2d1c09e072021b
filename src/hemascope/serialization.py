"""Records ↔ JSON."""

from __future__ import annotations

import base64
from typing import Any, TypeVar, get_origin

import msgspec
import numpy as np

T = TypeVar("T")


def to_json(value: object) -> bytes:
    """A dataclass as indented UTF-8 JSON. Floats keep every digit, those of arrays six or seven.

    An array is written as its shape and its single-precision values in base 64.
    """
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_encoded), indent=2) + b"\n"


def from_json(text: bytes | str, kind: type[T]) -> T:
    """The dataclass that `to_json` wrote. Raises ValueError that says what does not fit."""
    try:
        return msgspec.json.decode(text, type=kind, dec_hook=_decoded)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a valid {kind.__name__}: {error}") from None


def _encoded(value: Any) -> dict[str, Any]:
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value, dtype="<f4").tobytes()
        return {"shape": value.shape, "float32": base64.b64encode(content).decode()}
    raise NotImplementedError(f"{type(value).__name__} has no place in a result")


def _decoded(kind: Any, value: Any) -> Any:
    if (get_origin(kind) or kind) is not np.ndarray:
        raise NotImplementedError(f"{kind} has no place in a result")
    try:
        content = np.frombuffer(base64.b64decode(value["float32"], validate=True), "<f4")
        return content.astype(np.float64).reshape(value["shape"])
    except (KeyError, TypeError, ValueError):
        raise msgspec.ValidationError("an array needs a shape and that many values") from None
