"""PNG, WebP and JPEG files without what is not pixels, for files that Pillow refuses for it."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Collection
from typing import IO

from hemascope.decoding import jpeg
from hemascope.decoding.colour import MAX_PROFILE
from hemascope.decoding.limits import MAX_SEGMENTS
from hemascope.errors import ImageError

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
WEBP_KEPT = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH")
LEAST_PIECE = 4  # bytes
JPEG_KEPT = {0xE0: 14, 0xEE: 12}  # JFIF, and Adobe's, which says what the colours are: their bytes
ICC_PROFILE, EXIF, XMP = 0x20, 0x08, 0x04  # WebP's flags of what it holds


def check_pieces(file: IO[bytes], kind: str) -> None:
    """Raises ImageError for a PNG or JPEG in so many pieces that reading them would take long.

    Pillow reads each in Python: a million chunks of a PNG took 12 s.
    """
    if kind not in ("PNG", "JPEG") or file.seek(0, io.SEEK_END) < LEAST_PIECE * MAX_SEGMENTS:
        return
    at, pieces = (8, 0) if kind == "PNG" else (2, 0)
    while pieces <= MAX_SEGMENTS:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or (kind == "JPEG" and (head[0] != 0xFF or head[:2] == jpeg.SCAN)):
            return
        if kind == "PNG":
            at += 12 + int.from_bytes(head[:4], "big")
        else:  # any number of fill bytes may stand before a marker
            at += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4], "big")
        pieces += 1
    raise ImageError(f"more than {MAX_SEGMENTS:,} pieces of metadata or pixels; save it anew")


def without_metadata(kind: str, content: bytes) -> tuple[bytes, bytes | None] | None:
    """The file with its pixels only, and its colour profile; None where that helps nothing."""
    strip = _STRIP.get(kind)
    return strip(content) if strip else None


def _strip_png(content: bytes) -> tuple[bytes, bytes | None]:
    kept, profile, at = [PNG_HEAD], None, len(PNG_HEAD)
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        name, end = content[at + 4 : at + 8], at + 12 + length
        if name in PNG_KEPT and (name != b"tRNS" or length in _tones_of(content)):
            kept.append(content[at:end])
        elif name == b"iCCP":
            profile = _inflate(content[at + 8 : end - 4].partition(b"\0")[2][1:])
        at = end
    return b"".join(kept), profile


def _tones_of(png: bytes) -> Collection[int]:
    """How many bytes a PNG's tRNS has, by its type of colour; others are passed over."""
    return {0: (2,), 2: (6,), 3: range(1, 257)}.get(png[25], ())


def _inflate(data: bytes) -> bytes | None:
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(data, MAX_PROFILE)
    except zlib.error:
        return None
    return profile if inflater.eof else None


def _strip_webp(content: bytes) -> tuple[bytes, bytes | None]:
    kept, profile, at = [], None, 12
    while at + 8 <= len(content):
        name = content[at : at + 4]
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        chunk = content[at:end]
        if name == b"VP8X":
            flags = chunk[8] & ~(ICC_PROFILE | EXIF | XMP) if len(chunk) > 8 else 0
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if name in WEBP_KEPT:
            kept.append(chunk)
        elif name == b"ICCP":
            profile = chunk[8 : 8 + length]
        at = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body, profile


def _strip_jpeg(content: bytes) -> tuple[bytes, bytes | None] | None:
    """Also with an end marker, if that is all that is missing; None if pixels are missing."""
    kept, profile, at = [content[:2]], [], 2
    while content[at : at + 2] != jpeg.SCAN:
        if content[at : at + 1] != b"\xff" or at + 4 > len(content):
            return None
        marker = content[at + 1]
        if marker == 0xFF:  # fill bytes before a marker
            at += 1
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        is_whole = end - at - 4 >= JPEG_KEPT.get(marker, len(content))
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or is_whole:
            kept.append(content[at:end])
        elif marker == 0xE2 and content[at + 4 : at + 16] == b"ICC_PROFILE\0":
            profile.append(content[at + 16 : end])
        at = end
    pixels = b"".join(kept) + content[at:]
    whole = pixels if jpeg.END in content[at:] else jpeg.complete(pixels)
    if whole is None:
        return None
    return whole, b"".join(part[2:] for part in sorted(profile)) or None


def _end_jpeg_2000(content: bytes) -> tuple[bytes, None] | None:
    """With an end marker, if that or its last byte is missing; the decoder misses lost pixels."""
    if content.endswith(jpeg.END):
        return None
    return content + (jpeg.END[1:] if content.endswith(jpeg.END[:1]) else jpeg.END), None


_STRIP: dict[str, Callable[[bytes], tuple[bytes, bytes | None] | None]] = {
    "PNG": _strip_png,
    "WEBP": _strip_webp,
    "JPEG": _strip_jpeg,
    "JPEG2000": _end_jpeg_2000,
}
