"""Whether a JPEG file holds every pixel, and what its scans cost."""

from __future__ import annotations

import io
from typing import IO

from PIL import Image, JpegImagePlugin

from hemascope.decoding.errors import ImageError

END = b"\xff\xd9"
SCAN = b"\xff\xda"
MAX_PASSES = 1_000_000_000  # scans × pixels; a photograph has about ten scans
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
    scans = content.count(SCAN)
    pixels = image.width * image.height
    if scans > 1 and scans * pixels > MAX_PASSES:
        raise ImageError(f"too costly: {scans} scans of {image.width}×{image.height} pixels")
    first = content.find(SCAN)
    one = not image.info.get("progressive") and content[first + 4 : first + 5] == bytes(
        [len(image.getbands())]
    )
    return 0 if one else pixels * 2 * len(image.getbands()) + len(content)


def check_whole(file: IO[bytes], image: Image.Image) -> None:
    """Raises ImageError if a loaded JPEG's data ended early, and its end was filled with grey.

    What is filled is of one colour to the last pixel, which costs nothing to see; only then is
    the image decoded again.
    """
    layers = getattr(image, "layer", None) or [(1, 1, 1, 0)]
    wide, high = 8 * max(layer[1] for layer in layers), 8 * max(layer[2] for layer in layers)
    left, top = (image.width - 1) // wide * wide, (image.height - 1) // high * high
    if image.width - left > 4:
        left += 2  # the chroma of the block before reaches two pixels into the last
    if image.height - top > 4:
        top += 2
    corner = image.crop((left, top, image.width, image.height)).getextrema()
    if any(low != high for low, high in (corner if isinstance(corner[0], tuple) else (corner,))):
        return
    file.seek(0)
    content = file.read()
    end = content.find(END, content.find(SCAN))
    if end >= 0 and complete(content[:end]) is None:
        raise ImageError("damaged image: its lower part is missing")


def complete(content: bytes) -> bytes | None:
    """A JPEG file that lacks its end marker, with one; None where it lacks pixels too."""
    if content.find(SCAN) < 0:
        return None
    content = content.rstrip(b"\xff")
    ends = [content + tail + END for tail in GOES_ON]
    first, second = (_pixels(end) for end in ends)
    return ends[0] if first == second else None


def _pixels(content: bytes) -> bytes:
    """An eighth of the size: every byte of the file counts for these too, and they cost little."""
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
    image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
    return image.tobytes()
