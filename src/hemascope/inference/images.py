"""The images that a Classifier is given, loaded, and how a Prediction names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hemascope.arrays import ImageArray
from hemascope.errors import ImageError
from hemascope.predictions import Region
from hemascope.preprocess import ImageSource, InputSpec, View


def load_batch(
    batch: Sequence[ImageSource | View], spec: InputSpec, um_per_pixel: float | None
) -> tuple[list[ImageArray], dict[int, str], dict[int, str]]:
    """The images that can be read, (S,S,3) each; by index why the others cannot, and notices."""
    loaded: list[ImageArray] = []
    failures: dict[int, str] = {}
    notices: dict[int, str] = {}
    for index, image in enumerate(batch):
        try:
            pixels, notice = spec.read(image, um_per_pixel)
        except ImageError as error:
            failures[index] = str(error)
            continue
        loaded.append(pixels)
        if notice:
            notices[index] = notice
    return loaded, failures, notices


def image_id_of(image: ImageSource | View) -> str | None:
    """The path or address of an image; None for pixels and bytes."""
    image = image.image if isinstance(image, View) else image
    return str(image) if isinstance(image, (str, Path)) else None


def region_of(image: ImageSource | View, um_per_pixel: float | None) -> Region | None:
    """Where the model looks in an image; None for the middle of one of the training's scale."""
    view = image if isinstance(image, View) else View(image)
    width = um_per_pixel if view.um_per_pixel is None else view.um_per_pixel
    return None if view.centre is None and width is None else Region(view.centre, width)
