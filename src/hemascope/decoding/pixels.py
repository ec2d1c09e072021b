"""Arrays → 8-bit pixels: what their numbers mean, by their type and by the bits that are used."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.errors import ImageError

Pixels: TypeAlias = NDArray[Any]

ROWS = 256  # converted at once, so that wide types never exist as a whole a second time
DARK = 1 << 14  # 16-bit pixels all below this have fewer bits in 16, or show nothing


def image_from(array: Pixels, bits: int | None = None, min_is_white: bool = False) -> Image.Image:
    """An array (H,W), (H,W,1), (H,W,3) or (H,W,4) as an L, RGB or RGBA image.

    `bits` are the bits of a 16-bit pixel that are used, where a file tells them. Raises ImageError
    for other shapes, and as `to_uint8` does.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise ImageError(f"an array of shape {array.shape}; expected (H,W), (H,W,3) or (H,W,4)")
    pixels = to_uint8(array, bits)
    return Image.fromarray(255 - pixels if min_is_white else pixels)


def to_uint8(array: Pixels, bits: int | None = None) -> NDArray[np.uint8]:
    """Pixels of type uint8, uint16, bool, or floats in 0..1, as uint8; the shape stays.

    Of 16 bits, or of the `bits` of them that are used, the upper eight are kept. Raises ImageError
    for other types and ranges, and for 16-bit pixels so dark that fewer bits must be meant.
    """
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return np.asarray(array, dtype=np.uint8)
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "f":
        return _from_floats(array)
    if kind == "u" and array.dtype.itemsize == 2:
        return _from_16_bits(array, bits)
    raise ImageError(f"pixels of type {array.dtype}; expected uint8, uint16 or floats in 0..1")


def narrow(array: Pixels) -> NDArray[np.uint16]:
    """Integers of 0..65535 in a wider or signed type, as uint16. Raises ImageError for others."""
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise ImageError(f"pixel values from {low} to {high}; expected 0 to 65535")
    return array.astype(np.uint16)


def refuse_dark(image: Image.Image) -> None:
    """Raises ImageError for the upper bytes of 16-bit colours if they are nearly black."""
    largest = max(high for _, high in image.getextrema()[:3])  # type: ignore[misc]
    if 0 < largest < DARK >> 8:
        raise ImageError(
            f"16-bit colours of at most {largest} of 255 in their upper bytes, which is nearly "
            "black; if the camera has fewer bits, save the image with 8 bits"
        )


def _from_16_bits(array: Pixels, bits: int | None) -> NDArray[np.uint8]:
    colours = array[..., :3] if array.ndim == 3 else array  # a full alpha says nothing
    largest = int(colours.max())
    if bits is None or largest >= 1 << bits:
        bits = 16
    if 0 < largest < DARK >> (16 - bits):
        raise ImageError(
            f"16-bit pixels of at most {largest} of {(1 << bits) - 1}, which is nearly black; if "
            "the camera has fewer bits, save the image with 8 bits"
        )
    shift = bits - 8
    out = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), ROWS):
        out[start : start + ROWS] = array[start : start + ROWS] >> shift
    return out


def _from_floats(array: Pixels) -> NDArray[np.uint8]:
    out = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), ROWS):
        real = array[start : start + ROWS].astype(np.float64)
        if not np.isfinite(real).all() or real.min() < 0 or real.max() > 1:
            raise ImageError("floating-point pixels must lie between 0 and 1")
        out[start : start + ROWS] = np.rint(real * 255)
    return out
