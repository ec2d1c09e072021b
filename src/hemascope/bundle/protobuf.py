"""Reads and writes the fields of a protobuf message, which an ONNX file is, without a package.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

MOST_FIELDS = 1_000_000  # in one file; a graph of ours has some ten thousand
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class MessageReader:
    """Hands out the fields of a file's messages, at most MOST_FIELDS in all.

    Raises ValueError for bytes that are no message, and for more fields.
    """

    def __init__(self) -> None:
        self._left = MOST_FIELDS

    def fields(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """The number and the value of each field: a whole number, or the bytes of all else."""
        return ((number, value) for number, value, _ in self.spans(message))

    def spans(self, message: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
        """The number and the value of each field, and the bytes that both stand in."""
        place, end = 0, len(message)
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has too many parts")
            first = place
            tag, place = read_varint(message, place)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, place = read_varint(message, place)
                yield number, value, message[first:place]
                continue
            if kind == BYTES:
                length, place = read_varint(message, place)
            elif kind in (FIXED32, FIXED64):
                length = 4 if kind == FIXED32 else 8
            else:
                raise ValueError("it is damaged")
            if tag >= 2**32 or not number or length > end - place:
                raise ValueError("it is damaged")
            content = message[place : place + length]
            place += length
            yield number, content, message[first:place]

    def integers(self, value: int | memoryview) -> Iterator[int]:
        """The signed integers of one field of a list, which may be packed."""
        if isinstance(value, int):
            yield _signed(value)
            return
        place = 0
        while place < len(value):
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has too many parts")
            number, place = read_varint(value, place)
            yield _signed(number)


def read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """The unsigned integer at a place, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
    raise ValueError("it is damaged")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def write_varint(value: int) -> bytes:
    """An unsigned integer."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def write_integer(number: int, value: int) -> bytes:
    """A field that is an integer."""
    return write_varint(number << 3 | VARINT) + write_varint(value % 2**64)


def write_bytes(number: int, content: bytes) -> bytes:
    """A field that is a text, a message or other bytes."""
    return write_varint(number << 3 | BYTES) + write_varint(len(content)) + content
