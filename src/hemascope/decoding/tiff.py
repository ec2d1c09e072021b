"""A page of a TIFF as its header describes it: what it holds, and who reads it right.

Pillow reads some kinds as other pixels than the file has; they are told apart here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

from hemascope.decoding.limits import MAX_METADATA, MAX_SEGMENTS, check_size
from hemascope.errors import ImageError

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
WANTED = {
    254, 255, 256, 257, 258, 259, 262, 266, 270, 274, 277, 278, 281, 284, 322, 323, 338, 339, 341,
    530, 34675, 50839,
}  # fmt: skip
STRIPS, LENGTHS, TILES, TILE_LENGTHS, SUB_DIRECTORIES, METAMORPH_PLANES = PLACED = (
    273, 279, 324, 325, 330, 33629,
)  # fmt: skip


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
        """The first value of a tag, or a default."""
        value = self.tags.get(tag) or (otherwise,)
        return int(value[0])

    def number(self, tag: int) -> int:
        """How many values a tag in PLACED has."""
        return self.places.get(tag, (0, 0, 0))[1]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.first(256, 0)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.first(257, 0)

    @property
    def samples(self) -> int:
        """Values per pixel."""
        return self.first(277, 1)

    @property
    def bits(self) -> int:
        """Bits of a sample; 0 where samples differ."""
        bits = set(self.tags.get(258) or (1,))
        return int(bits.pop()) if len(bits) == 1 else 0

    @property
    def compression(self) -> int:
        """The tag Compression."""
        return self.first(259, RAW)

    @property
    def photometric(self) -> int:
        """The tag PhotometricInterpretation."""
        return self.first(262, 0)

    @property
    def planar(self) -> bool:
        """Whether each colour is a plane of its own."""
        return self.first(284, 1) == 2 and self.samples > 1

    @property
    def sample_format(self) -> int:
        """The tag SampleFormat."""
        return self.first(339, UNSIGNED)

    @property
    def orientation(self) -> int:
        """The tag Orientation."""
        return self.first(274, 1)

    @property
    def segments(self) -> int:
        """How many strips or tiles it has."""
        return max(self.number(STRIPS), self.number(TILES))

    @property
    def min_is_white(self) -> bool:
        """Whether 0 stands for white."""
        return self.photometric == 0

    @property
    def auxiliary(self) -> bool:
        """Whether it is a smaller copy of another page, or a mask."""
        return bool(self.first(254, 0) & 0b101) or self.first(255, 1) == 2

    @cached_property
    def description(self) -> str:
        """The text of the page, by which programs say what its values are."""
        text: bytes = self.tags.get(270, b"")
        return text.decode("utf-8", "replace").rstrip("\0")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.width, self.height, self.samples, self.bits

    @property
    def compression_name(self) -> str:
        """The compression in words."""
        return COMPRESSIONS.get(self.compression, f"compression {self.compression}")

    @property
    def used_bits(self) -> int | None:
        """Bits of a sample that the camera filled, where a 16-bit page or its text says so."""
        if self.bits != 16:
            return self.bits if 8 < self.bits < 16 else None
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
        if self.segments < self._segments_needed():
            raise ImageError("damaged image: some of its strips or tiles are missing")
        if self.metadata_bytes > MAX_METADATA:
            raise ImageError("damaged image: its header says it has more metadata than pixels")

    def _segments_needed(self) -> int:
        across, rows = 1, min(max(1, self.first(278, self.height)), self.height)
        if TILES in self.places:
            across = ceil(self.width / max(1, self.first(322, self.width)))
            rows = max(1, self.first(323, self.height))
        return across * ceil(self.height / rows) * (self.samples if self.planar else 1)

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
            whole = tuple(self.tags.get(530, (2, 2))) == (1, 1)  # colours at full resolution
            return samples == 3 and not self.planar and (whole or self.compression == JPEG)
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
