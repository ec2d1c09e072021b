"""as_source: what Python programs hold as an image → a path, bytes, a Pillow image or an array."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image"
    " | NDArray[np.generic]"
)
"""What can be read as an image: a path, a file's bytes, an open file, a PIL image, an array.

A tensor of torch, TensorFlow or JAX counts as an array.
"""
PlainSource: TypeAlias = "str | Path | bytes | Image.Image | NDArray[np.generic]"
"""The same, when `as_source` is done with it."""

TAKEN = (
    "a path, the bytes of an image file, a file opened in binary mode, a PIL image, an array "
    "(H,W), (H,W,3) or (H,W,4), or a tensor (H,W,3) or (3,H,W)"
)
CHANNELS = (1, 3, 4)


def as_source(image: object) -> PlainSource:
    """An image in whatever form, as one of those that `decode` reads.

    An open file is read from its beginning. Raises TypeError for what is no image, or several.
    """
    if isinstance(image, (str, Path, bytes, Image.Image)):
        return image
    if isinstance(image, os.PathLike):
        return os.fsdecode(image)
    if isinstance(image, bytearray) or (isinstance(image, memoryview) and not has_pixels(image)):
        return bytes(image)
    if is_file(image):
        return _content_of(image)
    if has_pixels(image):
        pixels = pixels_of(image)
        if pixels.dtype.kind not in "OUST":
            return pixels  # `decode` says what is wrong with those of other shapes
        raise TypeError(f"an array of type {pixels.dtype} is no image; taken are: {TAKEN}")
    raise TypeError(f"{type(image).__name__} is no image; taken are: {TAKEN}")


def is_file(image: object) -> bool:
    """Whether something is an open file, or is read like one."""
    return hasattr(image, "read")


def has_pixels(image: object) -> bool:
    """Whether something is an array, a tensor, or turns into one."""
    if isinstance(image, memoryview):  # or else of an image file's bytes
        return image.ndim > 1 or image.itemsize > 1
    return hasattr(image, "__array__") and not isinstance(image, (str, bytes, Image.Image))


def pixels_of(image: Any) -> NDArray[np.generic]:
    """An array, or a tensor as one: brought to the processor, with the channels last."""
    if isinstance(image, (np.ndarray, memoryview)):
        return np.asarray(image)
    try:
        for step in ("detach", "cpu"):  # torch's, which is not imported for this
            image = getattr(image, step)() if hasattr(image, step) else image
        if "bfloat16" in str(getattr(image, "dtype", "")) and hasattr(image, "float"):
            image = image.float()  # numpy has no such type
        pixels = np.asarray(image)
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        what = f"{type(image).__name__} ({getattr(image, 'dtype', 'no pixels')})"
        raise TypeError(f"{what} cannot be read as an array: {error}") from None
    channels_first = pixels.ndim in (3, 4) and pixels.shape[-3] in CHANNELS
    return np.moveaxis(pixels, -3, -1) if channels_first else pixels


def _content_of(file: Any) -> bytes:
    """All that is in an open file, wherever it stands."""
    if isinstance(file, io.TextIOBase):
        raise TypeError(_no_image_file(file, "; open it in binary mode ('rb')"))
    try:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        content = file.read()
    except (TypeError, io.UnsupportedOperation):  # an archive's `read`; a file to be written
        content = None
    if isinstance(content, bytes):
        return content
    hint = "; open it in binary mode ('rb')" if isinstance(content, str) else ""
    raise TypeError(_no_image_file(file, hint))


def _no_image_file(file: Any, hint: str) -> str:
    return f"{type(file).__name__} is no image file{hint}; taken are: {TAKEN}"
