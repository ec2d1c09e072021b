"""Whether a JPEG file holds every pixel, and what its scans cost."""

from __future__ import annotations

import hashlib
import io
from itertools import product
from typing import IO

from PIL import Image, JpegImagePlugin

from hemascope.errors import ImageError

END = b"\xff\xd9"
SCAN = b"\xff\xda"
PROGRESSIVE = b"\xff\xc2"  # its frame's header
MAX_PASSES = 1_000_000_000  # scans × pixels; a photograph has about ten scans
TWICE = 4_000_000  # pixels of a progressive JPEG that is decoded again to see its end
ROWS = 256
# Two ways to go on after the last byte. Where all pixels are there, neither changes any of them.
GOES_ON = (b"\x00" * 4096, b"\x55\xaa\x33\x96" * 1024)


def coefficient_bytes(file: IO[bytes], image: Image.Image) -> int:
    """The bytes that a JPEG of several scans takes beside its pixels; 0 for one scan.

    Raises ImageError for so many scans that decoding would not end.
    """
    if not image.info.get("progressive") and image.width * image.height < 10_000_000:
        return 0  # costs little either way, and the file is not read for it
    file.seek(0)
    content = file.read()
    file.seek(0)
    first = find_scan(content)
    scans = content.count(SCAN, max(first, 0))
    pixels = image.width * image.height
    if scans > 1 and scans * pixels > MAX_PASSES:
        raise ImageError(f"too costly: {scans} scans of {image.width}×{image.height} pixels")
    one = not image.info.get("progressive") and content[first + 4 : first + 5] == bytes(
        [len(image.getbands())]
    )
    return 0 if one else pixels * 2 * len(image.getbands()) + len(content)


def check_whole(file: IO[bytes], image: Image.Image) -> None:
    """Raises ImageError if a loaded JPEG's data ended early, and its end was filled with grey.

    What is filled is of one colour to the last pixel, which costs nothing to see; only then is
    the image decoded again. A progressive one is without it, if it is small.
    """
    progressive = bool(image.info.get("progressive"))
    if not (_is_small(image) if progressive else _ends_flat(image)):
        return
    file.seek(0)
    content = file.read()
    end = content.find(END, find_scan(content))
    if end >= 0 and not _same_however_it_goes_on(content[:end], progressive):
        raise ImageError("damaged image: its lower part is missing")


def find_scan(content: bytes) -> int:
    """Where the first scan begins, behind the metadata, which may hold a JPEG of its own; or -1."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        if content[at : at + 2] == SCAN:
            return at
        fill = content[at + 1] == 0xFF  # any number of these may stand before a marker
        at += 1 if fill else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return -1


def _is_small(image: Image.Image) -> bool:
    return image.width * image.height <= TWICE


def _ends_flat(image: Image.Image) -> bool:
    """Whether the last block is of one colour."""
    layers = getattr(image, "layer", None) or [(1, 1, 1, 0)]
    wide, high = 8 * max(layer[1] for layer in layers), 8 * max(layer[2] for layer in layers)
    left, top = (image.width - 1) // wide * wide, (image.height - 1) // high * high
    if image.width - left > 4:
        left += 2  # the chroma of the block before reaches two pixels into the last
    if image.height - top > 4:
        top += 2
    corner = image.crop((left, top, image.width, image.height)).getextrema()
    ranges = corner if isinstance(corner[0], tuple) else (corner,)
    return all(low == high for low, high in ranges)


def complete(content: bytes) -> bytes | None:
    """A JPEG file without metadata that lacks its end marker, with one; None if pixels lack too.

    Zeros at the end are a disk's or a memory card's, not the image's.
    """
    if find_scan(content) < 0:
        return None
    progressive = PROGRESSIVE in content
    if progressive and not _all_bits_sent(content):
        return None
    content = content.rstrip(b"\xff\0")
    return content + END if _same_however_it_goes_on(content, progressive) else None


def _same_however_it_goes_on(content: bytes, progressive: bool) -> bool:
    first, second = (_pixels(content + tail + END, progressive) for tail in GOES_ON)
    return first == second


def _pixels(content: bytes, progressive: bool) -> bytes:
    """The pixels' hash, of a baseline JPEG at an eighth of the size: any missing bit shows there.

    A progressive one's last scans are of the fine detail.
    """
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
    if not progressive:
        image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()
    digest = hashlib.sha256()
    for top in range(0, image.height, ROWS):
        rows = image.crop((0, top, image.width, min(top + ROWS, image.height)))
        digest.update(rows.tobytes())
    return digest.digest()


def _all_bits_sent(content: bytes) -> bool:
    """Whether a progressive JPEG has scans of every coefficient down to its last bit."""
    frame = content.find(PROGRESSIVE)
    components = content[frame + 10 : frame + 10 + 3 * content[frame + 9] : 3]
    missing = set(product(components, range(64)))
    at = content.find(SCAN)
    while 0 <= at < len(content) - 5:
        count = content[at + 4]
        scan = content[at + 5 : at + 8 + 2 * count]
        if len(scan) == 3 + 2 * count and scan[-1] & 15 == 0:
            places = range(scan[-3], scan[-2] + 1)
            missing -= {
                (component, place) for component in scan[: 2 * count : 2] for place in places
            }
        at = content.find(SCAN, at + 2)
    return not missing
