"""InputSpec: the only preprocessing there is. Training, evaluation and serving all call it.

An image is decoded, turned upright, brought to 8-bit RGB, cut to a square and resized. The square
is a part of the image, or, where the width of a pixel is known, so many micrometres wide.
Normalisation is not done here: it is inside the model's graph.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hemascope.errors import ImageError

ImageSource: TypeAlias = "str | Path | bytes | Image.Image | NDArray[np.generic]"
"""What can be read as an image: a path, an encoded file's bytes, a PIL image, or an array."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000
UM_PER_PIXEL = (0.02, 2.0)  # a microscope's pixels; beyond, the number is of another unit

Image.MAX_IMAGE_PIXELS = None  # decode() refuses by the header, with a message of our own


@dataclass(frozen=True)
class View:
    """An image, where in it to look, and its scale.

    Parameters
    ----------
    image
        A path, an encoded file's bytes, a PIL image, or an array.
    um_per_pixel
        How many micrometres a pixel is wide; None for an image of the same scale as the training
        images.
    centre
        The point (x, y) to look at, in pixels from the upper left corner of the upright image; None
        for the middle of the image.

    Examples
    --------
    >>> from hemascope import Classifier, View
    >>> from hemascope.data.synthetic import draw_cell
    >>> cell = draw_cell("eosinophil", seed=0)
    >>> len(Classifier().predict([View(cell, centre=(x, 180)) for x in (170, 190)]))
    2
    """

    image: ImageSource
    um_per_pixel: float | None = None
    centre: tuple[float, float] | None = None


@dataclass(frozen=True)
class InputSpec:
    """What a model is given: a square of the image, resized to S×S pixels.

    Parameters
    ----------
    size
        S, from 16 to 2048.
    crop
        Side of the square as a fraction of the image's shorter side: 1.0 keeps all of a square
        image, 0.5 its middle quarter.
    microns
        Side of the square in micrometres, for images of another scale than the training images;
        None where it is not known.

    Raises
    ------
    ValueError
        For a value out of range.

    Examples
    --------
    >>> from hemascope import InputSpec
    >>> from hemascope.data.synthetic import draw_cell
    >>> InputSpec(size=128, crop=0.6).load(draw_cell("monocyte", seed=0)).shape
    (128, 128, 3)
    """

    size: int = 224
    crop: float = 1.0
    microns: float | None = None

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 2048:
            raise ValueError(f"input size must be between 16 and 2048 pixels, not {self.size}")
        if not 0.1 <= self.crop <= 1.0:
            raise ValueError(f"crop must be between 0.1 and 1.0, not {self.crop}")
        if self.microns is not None and not 1 <= self.microns <= 200:
            raise ValueError(f"microns must be between 1 and 200, not {self.microns:g}")

    def apply(
        self,
        image: Image.Image,
        um_per_pixel: float | None = None,
        centre: tuple[float, float] | None = None,
    ) -> NDArray[np.uint8]:
        """An RGB image of any size, as a (S,S,3) uint8 array.

        `um_per_pixel` and `centre` are as in View. A square that reaches past the image is filled
        up with its ground. Raises ValueError as `side` does, and ImageError for a centre outside.
        """
        side = self.side(image, um_per_pixel)
        x, y = centre or (image.width / 2, image.height / 2)
        if not (0 <= x <= image.width and 0 <= y <= image.height):
            raise ImageError(f"({x:g}, {y:g}) is outside its {image.width}×{image.height} pixels")
        left, top = x - side / 2, y - side / 2
        margin = ceil(max(-left, -top, left + side - image.width, top + side - image.height))
        if margin > 0:
            image = _framed(image, margin)
            left, top = left + margin, top + margin
        box = (left, top, left + side, top + side)
        small = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        return np.asarray(small, dtype=np.uint8)

    def side(self, image: Image.Image, um_per_pixel: float | None = None) -> float:
        """The square's side in the image's pixels.

        Raises ValueError for a width of pixels that is out of range, or a spec without `microns`.
        """
        if um_per_pixel is None:
            return min(image.size) * self.crop
        low, high = UM_PER_PIXEL
        if not low <= um_per_pixel <= high:
            raise ValueError(
                f"a pixel must be {low:g} to {high:g} micrometres wide, not {um_per_pixel:g}"
            )
        if self.microns is None:
            raise ValueError(
                "the model's card does not say how many micrometres it sees: leave the width of "
                "pixels out, or export the model again with --image-microns"
            )
        return self.microns / um_per_pixel

    def load(
        self, source: ImageSource | View, um_per_pixel: float | None = None
    ) -> NDArray[np.uint8]:
        """Any image source, or a view of one, as a (S,S,3) uint8 array.

        A view's own scale goes before `um_per_pixel`. Raises ImageError, and ValueError
        as `side` does.
        """
        if not isinstance(source, View):
            return self.apply(decode(source), um_per_pixel)
        own = source.um_per_pixel
        return self.apply(decode(source.image), um_per_pixel if own is None else own, source.centre)


def ground_colour(image: Image.Image) -> NDArray[np.float64]:
    """The empty, bright ground of an RGB image, (3,): the 90th percentile of each channel."""
    return np.asarray(np.percentile(np.asarray(image), 90, axis=(0, 1)), dtype=np.float64)


def _framed(image: Image.Image, margin: int) -> Image.Image:
    """The image with so many pixels of its ground around. A mirror would double cells."""
    red, green, blue = np.rint(ground_colour(image)).astype(int).tolist()
    size = (image.width + 2 * margin, image.height + 2 * margin)
    framed = Image.new("RGB", size, (red, green, blue))
    framed.paste(image, (margin, margin))
    return framed


def decode(source: ImageSource) -> Image.Image:
    """An image source as an upright 8-bit RGB image.

    Arrays are (H,W), (H,W,1), (H,W,3) or (H,W,4), of uint8, uint16, bool, or floats in 0..1.
    Grey, palette, alpha (laid on white), CMYK, 16-bit and EXIF-rotated images are converted.
    Raises ImageError where that cannot be done.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    try:
        return _to_rgb(source) if isinstance(source, Image.Image) else _from_file(source)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except IsADirectoryError:
        raise ImageError("a folder, not an image") from None
    except OSError as error:  # Pillow's own have no number
        if error.errno is not None:
            raise ImageError(f"cannot be read: {error.strerror}") from None
        raise ImageError(f"damaged image: {error}") from None
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
        raise ImageError(f"damaged image: {error}") from None


def _from_file(source: str | Path | bytes) -> Image.Image:
    try:
        opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except UnidentifiedImageError:
        raise ImageError(_why_unidentified(source)) from None
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(
                f"too large: {image.width}×{image.height} pixels, the limit is "
                f"{MAX_PIXELS // 1_000_000} million"
            )
        return _to_rgb(image)


def _why_unidentified(source: str | Path | bytes) -> str:
    size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    return "empty file" if size == 0 else "not an image in a known format"


def _to_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    mode = upright.mode
    if mode == "RGB" and "transparency" not in upright.info:
        upright.load()
        return upright
    if mode.startswith("I") or mode == "F":
        return _from_array(_narrowed(np.asarray(upright)))
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        coloured = upright.convert("RGBA")
        ground = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(ground, coloured).convert("RGB")
    return upright.convert("RGB")


def _narrowed(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """16-bit grey that Pillow holds in 32-bit integers, as 16-bit integers; others as they are."""
    if array.dtype.kind != "i":
        return array
    wide = array.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ImageError(f"pixel values from {wide.min()} to {wide.max()}; expected 0 to 65535")
    return wide.astype(np.uint16)


def _from_array(array: NDArray[np.generic]) -> Image.Image:
    """An array as an RGB image; see `decode` for what it may hold."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise ImageError(f"an array of shape {array.shape}; expected (H,W), (H,W,3) or (H,W,4)")
    return _to_rgb(Image.fromarray(_to_uint8(array)))


def _to_uint8(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    kind, values = array.dtype.kind, np.asarray(array)
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    if kind == "f":
        real = values.astype(np.float64)
        if not np.isfinite(real).all() or real.min() < 0 or real.max() > 1:
            raise ImageError("floating-point pixels must lie between 0 and 1")
        return np.rint(real * 255).astype(np.uint8)
    raise ImageError(f"pixels of type {array.dtype}; expected uint8, uint16 or floats in 0..1")
