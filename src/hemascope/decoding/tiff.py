"""The header of a TIFF: its pages, what they hold, and who reads them right.

Read by a parser of our own, because what a page costs must be known before it is decoded, and
because Pillow reads some kinds as other pixels than the file has.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Literal

from hemascope.decoding.errors import ImageError
from hemascope.decoding.limits import MAX_METADATA, MAX_SEGMENTS, check_size

MAX_PAGES = 1000
MAX_ENTRIES = 512  # of one page's directory; usual are twenty
MAX_BYTES = 4_000_000  # of one tag: a colour profile, or OME's description
TYPES = {1: "s", 2: "s", 3: "H", 4: "I", 6: "s", 7: "s", 8: "h", 9: "i", 16: "Q", 17: "q", 18: "Q"}
SIZES = {5: 8, 10: 8, 11: 4, 12: 8, 13: 4}  # of the types that are not read here

GREY, RGB, PALETTE, INK, YCBCR, LAB = (0, 1), 2, 3, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
RAW, LZW, JPEG = 1, 5, 7
COMPRESSIONS = {
    RAW: "none", 2: "CCITT", 3: "CCITT 3", 4: "CCITT 4", LZW: "LZW", 6: "old JPEG", JPEG: "JPEG",
    8: "Deflate", 32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000", 33005: "JPEG 2000",
    34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 50000: "Zstandard",
    50001: "WebP", 34927: "WebP", 50002: "JPEG XL", 52546: "JPEG XL", 34934: "JPEG XR",
    22610: "JPEG XR", 34933: "PNG",
}  # fmt: skip
PILLOW_DECODES = (RAW, 2, 3, 4, LZW, JPEG, 8, 32773, 32946, 34925, 50000)
METADATA_TAGS = (700, 33723, 34377, 34665, 34853, 40965)  # XMP, IPTC, Photoshop, EXIF, GPS
UNREAD = 65_000  # a private tag


@dataclass(frozen=True)
class Page:
    """One directory of a TIFF: the values of the tags in WANTED, the places of those in PLACED.

    A place is the values' type, their number, and where in the file they stand.
    """

    index: int
    big_endian: bool
    big: bool
    tags: dict[int, Any]
    places: dict[int, tuple[int, int, int]]
    metadata_bytes: int

    def first(self, tag: int, otherwise: int) -> int:
        value = self.tags.get(tag) or (otherwise,)
        return int(value[0])

    def number(self, tag: int) -> int:
        """How many values a tag in PLACED has."""
        return self.places.get(tag, (0, 0, 0))[1]

    @property
    def width(self) -> int:
        return self.first(256, 0)

    @property
    def height(self) -> int:
        return self.first(257, 0)

    @property
    def samples(self) -> int:
        return self.first(277, 1)

    @property
    def bits(self) -> int:
        """Bits of a sample; 0 where samples differ."""
        bits = set(self.tags.get(258) or (1,))
        return int(bits.pop()) if len(bits) == 1 else 0

    @property
    def compression(self) -> int:
        return self.first(259, RAW)

    @property
    def photometric(self) -> int:
        return self.first(262, 0)

    @property
    def planar(self) -> bool:
        """Whether each colour is a plane of its own."""
        return self.first(284, 1) == 2 and self.samples > 1

    @property
    def sample_format(self) -> int:
        return self.first(339, UNSIGNED)

    @property
    def orientation(self) -> int:
        return self.first(274, 1)

    @property
    def segments(self) -> int:
        """How many strips or tiles it has."""
        return max(self.number(STRIPS), self.number(TILES))

    @property
    def min_is_white(self) -> bool:
        return self.photometric == 0

    @property
    def auxiliary(self) -> bool:
        """Whether it is a smaller copy of another page, or a mask."""
        return bool(self.first(254, 0) & 0b101) or self.first(255, 1) == 2

    @cached_property
    def description(self) -> str:
        text: bytes = self.tags.get(270, b"")
        return text.decode("utf-8", "replace").rstrip("\0")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.width, self.height, self.samples, self.bits

    @property
    def compression_name(self) -> str:
        return COMPRESSIONS.get(self.compression, f"compression {self.compression}")

    @property
    def used_bits(self) -> int | None:
        """Bits of a sample that the camera filled, where a 16-bit page or its text says so."""
        if self.bits != 16:
            return self.bits if 8 < self.bits < 16 else None
        if self.sample_format == SIGNED:
            return 15
        if self.sample_format == SIGNED:
            return 15
        said = re.search(r'SignificantBits="(\d+)"', self.description)
        if said:
            return int(said[1]) if 8 < int(said[1]) < 16 else None
        largest = self.first(341, 0) or self.first(281, 0)
        shown = re.search(r"^max=(\d+)(\.0*)?$", self.description, re.M)  # ImageJ's
        if not largest and shown:
            largest = int(shown[1])
        bits = (largest + 1).bit_length() - 1
        return bits if 8 < bits < 16 and largest + 1 == 1 << bits else None

    def check(self) -> None:
        """Raises ImageError for a page that costs too much, or has no pixels."""
        check_size(self.width, self.height)
        if self.segments > MAX_SEGMENTS:
            raise ImageError(f"{self.segments:,} strips or tiles; the limit is {MAX_SEGMENTS:,}")
        if self.metadata_bytes > MAX_METADATA:
            raise ImageError("damaged image: its header says it has more metadata than pixels")

    def pillow_reads_right(self) -> bool:
        """Whether Pillow gives this kind of page's pixels as they are, as measured on each kind."""
        if self.compression not in PILLOW_DECODES or (self.big and self.big_endian):
            return False
        if self.first(266, 1) != 1 and self.bits > 1:
            return False
        if self.bits in (1, 2, 4, 8) and self.sample_format == UNSIGNED:
            return self._reads_right_8_bits()
        return self._reads_right_more_bits()

    def _reads_right_8_bits(self) -> bool:
        photometric, samples = self.photometric, self.samples
        if photometric in GREY or photometric == PALETTE:
            return samples == 1 or (samples == 2 and self.bits == 8 and not self.planar)
        if self.bits != 8:
            return False
        if photometric == RGB:
            return samples == 3 or (3 < samples <= 6 and not self.planar)
        if photometric == INK:
            return samples == 4
        if photometric == YCBCR:
            plain = self.compression == RAW and tuple(self.tags.get(530, (2, 2))) == (1, 1)
            return samples == 3 and not self.planar and (plain or self.compression == JPEG)
        return photometric == LAB and samples == 3 and not self.planar and self.compression != JPEG

    def _reads_right_more_bits(self) -> bool:
        photometric, single = self.photometric, self.samples == 1
        if self.sample_format == UNSIGNED and self.bits == 16:
            if single:
                return photometric == 1 or (photometric == 0 and not self.big_endian)
            fits = (photometric == RGB and self.samples in (3, 4)) or (
                photometric == INK and self.samples == 4
            )
            return fits and not self.planar and self.used_bits is None
        if self.sample_format == UNSIGNED and self.bits == 12:
            return single and photometric == 1 and self.compression == RAW
        native = not self.big_endian or self.compression == RAW
        wide = (self.bits, self.sample_format) in ((16, SIGNED), (32, SIGNED), (32, FLOAT))
        wide = wide or ((self.bits, self.sample_format) == (32, UNSIGNED) and not self.big_endian)
        return single and photometric == 1 and native and wide


WANTED = {
    254, 255, 256, 257, 258, 259, 262, 266, 270, 274, 277, 278, 281, 284, 322, 323, 338, 339, 341,
    530, 34675, 50839,
}  # fmt: skip
STRIPS, LENGTHS, TILES, TILE_LENGTHS, SUB_DIRECTORIES, METAMORPH_PLANES = PLACED = (
    273, 279, 324, 325, 330, 33629,
)  # fmt: skip
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


def _directories(file: IO[bytes]) -> Any:
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
