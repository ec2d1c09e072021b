"""InputSpec: the only preprocessing there is. Training, evaluation and serving all call it.

An image is decoded, turned upright, brought to 8-bit RGB, cut to a square and resized. The square
is a part of the image, or, where the width of a pixel is known, so many micrometres wide.
Normalisation is not done here: it is inside the model's graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.decoding import IMAGE_SUFFIXES, ImageSource, decode, decoded
from hemascope.errors import ImageError

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageSource",
    "InputSpec",
    "View",
    "add_frame",
    "decode",
    "ground_colour",
]

UM_PER_PIXEL = (0.02, 2.0)  # a microscope's pixels; beyond, the number is of another unit


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
            image = add_frame(image, margin)
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
        return self.read(source, um_per_pixel)[0]

    def read(
        self, source: ImageSource | View, um_per_pixel: float | None = None
    ) -> tuple[NDArray[np.uint8], str]:
        """The same, with what must be said of the image, such as which page of a file it is."""
        view = source if isinstance(source, View) else View(source, um_per_pixel)
        own = um_per_pixel if view.um_per_pixel is None else view.um_per_pixel
        with decoded(view.image) as found:
            return self.apply(found.image, own, view.centre), found.notice


def ground_colour(image: Image.Image) -> NDArray[np.float64]:
    """The empty, bright ground of an RGB image, (3,): the 90th percentile of each channel."""
    return np.asarray(np.percentile(np.asarray(image), 90, axis=(0, 1)), dtype=np.float64)


def add_frame(image: Image.Image, margin: int) -> Image.Image:
    """An RGB image with so many pixels of its ground around it. A mirror would double cells."""
    red, green, blue = np.rint(ground_colour(image)).astype(int).tolist()
    size = (image.width + 2 * margin, image.height + 2 * margin)
    framed = Image.new("RGB", size, (red, green, blue))
    framed.paste(image, (margin, margin))
    return framed
