"""The header of a TIFF → its pages.

Read by a parser of our own, because what a page costs must be known before it is decoded.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO, Any, Literal

from hemascope.decoding.limits import MAX_SEGMENTS
from hemascope.decoding.tiff import (
    JPEG,
    LENGTHS,
    PLACED,
    RAW,
    STRIPS,
    TILE_LENGTHS,
    TILES,
    WANTED,
    Page,
)
from hemascope.errors import ImageError

MAX_PAGES = 1000
MAX_ENTRIES = 512  # of one page's directory; usual are twenty
MAX_BYTES = 4_000_000  # of one tag: a colour profile, or OME's description
TYPES = {1: "s", 2: "s", 3: "H", 4: "I", 6: "s", 7: "s", 8: "h", 9: "i", 16: "Q", 17: "q", 18: "Q"}
SIZES = {5: 8, 10: 8, 11: 4, 12: 8, 13: 4}  # of the types that are not read here
METADATA_TAGS = (700, 33723, 34377, 34665, 34853, 40965)  # XMP, IPTC, Photoshop, EXIF, GPS
UNREAD = 65_000  # a private tag
JPEG_END = 1024  # bytes at a JPEG strip's end where its end marker stands


def read_pages(file: IO[bytes]) -> list[Page]:
    """The pages of a TIFF, without its sub-directories. Raises ImageError for a damaged header."""
    try:
        return [page for page, _ in _directories(file)]
    except (struct.error, OverflowError, MemoryError):
        raise ImageError("damaged image: its TIFF header cannot be read") from None


def check_segments(file: IO[bytes], page: Page) -> list[tuple[int, int]]:
    """The offset and length of each strip or tile of a compressed page.

    Raises ImageError for one that is missing, past the file's end, or a JPEG without its end: the
    decoders would fill these with grey. Without compression they read, or fail, by themselves.
    """
    if page.compression == RAW:
        return []
    offsets, lengths = page.places.get(TILES) or page.places.get(STRIPS), page.places.get(LENGTHS)
    lengths = page.places.get(TILE_LENGTHS) or lengths
    if offsets is None or lengths is None or offsets[1] != lengths[1]:
        raise ImageError("damaged image: its header does not say where its strips or tiles are")
    segments = list(zip(_array(file, page, offsets), _array(file, page, lengths), strict=True))
    size = file.seek(0, io.SEEK_END)
    for offset, length in segments:
        if offset == 0 or length == 0 or offset + length > size:
            raise ImageError("damaged image: some of its strips or tiles are missing")
        if page.compression == JPEG:
            file.seek(offset + max(0, length - JPEG_END))
            if b"\xff\xd9" not in file.read(min(length, JPEG_END)):
                raise ImageError("damaged image: some of its strips or tiles end early")
    return segments


def _array(file: IO[bytes], page: Page, place: tuple[int, int, int]) -> tuple[int, ...]:
    kind, count, at = place
    code = TYPES.get(kind, "")
    if code not in ("H", "I", "Q") or count > MAX_SEGMENTS:
        raise ImageError("damaged image: its header does not say where its strips or tiles are")
    file.seek(at)
    layout = (">" if page.big_endian else "<") + f"{count}{code}"
    try:
        return struct.unpack(layout, file.read(struct.calcsize(layout)))
    except struct.error:
        raise ImageError("damaged image: its TIFF header cannot be read") from None


def hide_metadata(content: bytes) -> bytes:
    """The TIFF file with its EXIF, XMP and the like under tags that nobody reads."""
    hidden = bytearray(content)
    for page, entries in _directories(io.BytesIO(content)):
        order: Literal["big", "little"] = "big" if page.big_endian else "little"
        for tag, at in entries:
            if tag in METADATA_TAGS:
                hidden[at : at + 2] = UNREAD.to_bytes(2, order)
    return bytes(hidden)


def _directories(file: IO[bytes]) -> Iterator[tuple[Page, list[tuple[int, int]]]]:
    """Yields a Page, and the (tag, position) of each of its entries."""
    file.seek(0)
    head = file.read(16)
    end = ">" if head[:2] == b"MM" else "<"
    big = struct.unpack(end + "H", head[2:4])[0] == 43
    at = struct.unpack(end + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]
    layout, word = (end + "HHQ8s", "Q") if big else (end + "HHI4s", "I")
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        if len(seen) > MAX_PAGES:
            raise ImageError(f"more than {MAX_PAGES} pages")
        file.seek(at)
        count = struct.unpack(end + ("Q" if big else "H"), file.read(8 if big else 2))[0]
        if count > MAX_ENTRIES:
            raise ImageError("damaged image: its TIFF header cannot be read")
        start, size = at + (8 if big else 2), struct.calcsize(layout)
        body = file.read(count * size)
        if len(body) < count * size:
            raise ImageError("damaged image: its TIFF header cannot be read")
        following = file.read(struct.calcsize(word))
        entries = list(struct.iter_unpack(layout, body))
        page = _page(file, len(seen) - 1, end, big, start, entries)
        yield page, [(entry[0], start + n * size) for n, entry in enumerate(entries)]
        at = struct.unpack(end + word, following)[0] if len(following) >= 4 else 0


def _page(file: IO[bytes], index: int, end: str, big: bool, start: int, entries: list[Any]) -> Page:
    tags: dict[int, Any] = {}
    places: dict[int, tuple[int, int, int]] = {}
    metadata, size = 0, 20 if big else 12
    for number, (tag, kind, count, value) in enumerate(entries):
        code = TYPES.get(kind, "")
        unit = struct.calcsize(code) if code else SIZES.get(kind, 1)
        inside = count * unit <= len(value)
        at = start + (number + 1) * size - len(value)
        if not inside:
            at = struct.unpack(end + ("Q" if big else "I"), value)[0]
            metadata += count * unit
        if tag in PLACED:
            places[tag] = kind, count, at
        if tag not in WANTED or not code:
            continue
        count = min(count, MAX_BYTES if unit == 1 else 64)
        data = value[: count * unit]
        if not inside:
            file.seek(at)
            data = file.read(count * unit)
        if code == "s":
            tags[tag] = data
        else:
            tags[tag] = struct.unpack(end + str(len(data) // unit) + code, data)
    return Page(index, end == ">", big, tags, places, metadata)
