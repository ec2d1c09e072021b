"""each_image: one image or many, in the forms that Python programs hold them in, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.decoding.given import TAKEN, as_source, has_pixels, is_file, pixels_of
from hemascope.preprocess import ImageSource, View

Images: TypeAlias = "ImageSource | View | Iterable[ImageSource | View]"
"""One image or view of an image, or any number of them."""

COLUMNS = ("path", "image")  # those of a table that hold images, the first that is there


def each_image(given: Images) -> Iterator[ImageSource | View]:
    """The images, in order: one for one image, and one for each of several.

    Several are a list or any other iterable of images; an array (N,H,W,C) or a tensor (N,C,H,W); an
    array or a Series of paths or images; a data frame with a column `path` or `image`, or with one
    column. Raises TypeError for anything else, which says what is taken.
    """
    images: Any = given
    if isinstance(images, Mapping):
        raise TypeError(f"{type(images).__name__} is no image; give a list of its values")
    columns = getattr(images, "column_names", None) or getattr(images, "columns", None)
    if columns is not None:
        images = _column(images, list(columns))
    if isinstance(images, View) or not (has_pixels(images) or _is_iterable(images)):
        return iter((_as_image(images),))
    return _each(_split(pixels_of(images)) if has_pixels(images) else images)


def _is_iterable(images: object) -> bool:
    """Whether something that is no array holds several images; a path or a file is one."""
    one = (str, bytes, bytearray, os.PathLike, Image.Image, memoryview)
    return isinstance(images, Iterable) and not isinstance(images, one) and not is_file(images)


def _split(pixels: NDArray[Any]) -> Iterable[Any]:
    """The images in an array: itself, each of (N,H,W,C), or the paths or objects that it holds."""
    if pixels.shape == (0,):  # an empty list, of whatever type
        return []
    if pixels.dtype.kind == "S":
        return [os.fsdecode(path) for path in pixels.ravel().tolist()]
    if pixels.dtype.kind in "OUT":
        return pixels.ravel().tolist()
    if pixels.ndim in (2, 3):
        return [pixels]
    if pixels.ndim == 4:
        return pixels
    raise TypeError(
        f"an array of shape {pixels.shape} and type {pixels.dtype} holds no images; taken are: "
        f"{TAKEN}; or (N,H,W,C)"
    )


def _each(images: Iterable[Any]) -> Iterator[ImageSource | View]:
    for index, image in enumerate(images):
        try:
            yield _as_image(image)
        except TypeError as error:
            raise TypeError(f"image {index}: {error}") from None


def _as_image(image: Any) -> ImageSource | View:
    view = image if isinstance(image, View) else View(image)
    source = as_source(view.image)
    if isinstance(source, np.ndarray) and source.ndim not in (2, 3):
        raise TypeError(f"an array of shape {source.shape} is not one image")
    return replace(image, image=source) if isinstance(image, View) else source


def _column(table: Any, names: list[Any]) -> Any:
    """The column of a data frame that holds images."""
    chosen = [name for name in COLUMNS if name in names] or (names if len(names) == 1 else [])
    if not chosen:
        raise TypeError(
            f"{type(table).__name__} has no column 'path' or 'image'; give the column that holds "
            f"the images, of {', '.join(map(str, names))}"
        )
    return table[chosen[0]]
