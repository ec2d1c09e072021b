"""find_scale: how many micrometres a pixel is wide in images of single cells, from their cells.

Red cells around the cell are the ruler. Where too few are seen, as in images that are cut close to
the cell, white cells are, each by the classes that it may be of. Both are as large as the locator
finds them at PBC, whose scale is known (docs/decisions/0025-the-scale-by-default.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
from PIL import Image

from hemascope.arrays import FloatArray, ProgressCallback
from hemascope.bundle.bundle import Bundle
from hemascope.data.external import RED_CELL_MICRONS
from hemascope.decoding import ImageSource, decoded
from hemascope.errors import ImageError
from hemascope.inference.classifier import Classifier
from hemascope.predictions import Prediction
from hemascope.preprocess import UM_PER_PIXEL, InputSpec, View, add_frame
from hemascope.records import Interval
from hemascope.smear.locate import Locator
from hemascope.smear.records import LocatedCell, LocatedField

Kind: TypeAlias = Literal["red", "white"]
SAMPLE, ROUND = 32, 8  # images that are looked at, at most, and one after the other
ENOUGH, HOPELESS = 6, 16  # images that tell the scale; of which none tells it
LEAST_SHARE = 0.15  # of the images must show it by red cells, else these are something else
RED_BOX, WHITE_BOX = 7.55, 13.5  # µm, sides of located cells: medians of PBC's training images
CLASS_BOXES = {
    "basophil": 12.7,
    "eosinophil": 14.1,
    "erythroblast": 9.6,
    "ig": 13.6,
    "lymphocyte": 10.4,
    "monocyte": 16.6,
    "neutrophil": 14.1,
    "platelet": 6.4,
}
"""The same of each class."""
STEPS = 3  # in which classes and scale settle
SAME_RED, SAME_FEW, SAME_WHITE = 1.15, 1.25, 1.2  # times the training images' scale: still the same
APART = 1.3  # ratio of the quartiles of images whose scales differ
RESAMPLES = 400
NOT_TOLD = (
    "the images are taken to have the scale of the training images, because their cells do not "
    "tell it; give it with --um-per-pixel if you know it"
)
FRAME = 0.5  # of an image's shorter side: what is put around it where a cell may fill it


class CellLocator(Protocol):
    """What finds the cells of an image, such as a Locator."""

    def locate(self, image: Image.Image) -> LocatedField:
        """Its cells, and the scale that its red cells tell."""


@dataclass(frozen=True)
class FoundScale:
    """The scale of images that come without one.

    Parameters
    ----------
    um_per_pixel
        How many micrometres a pixel is wide; None for the scale of the training images.
    note
        A sentence that says what it rests on.
    measured
        What the cells tell, with the interval of the median of the images; None where they do not.
    kind
        Which cells told it: red or white ones, or none.

    Examples
    --------
    >>> from hemascope import FoundScale
    >>> FoundScale(0.17, "0.17 µm a pixel, by the red cells in 8 of 8 images").um_per_pixel
    0.17
    """

    um_per_pixel: float | None
    note: str
    measured: Interval | None = None
    kind: Kind | None = None


def find_scale(
    images: Sequence[ImageSource | View],
    bundle: Bundle,
    locator: CellLocator | None = None,
    progress: ProgressCallback | None = None,
    kinds: Sequence[Kind] = ("red", "white"),
) -> FoundScale:
    """One scale for images of single cells of one laboratory, by a random sample of them.

    Parameters
    ----------
    images
        The images; those that cannot be read are passed over.
    bundle
        The model that is to name them. Without `microns` on its card it cannot be told a scale.
    locator
        What finds the cells; by default, the network that comes with the package.
    progress
        Called with the number of images that were looked at, and the largest number of them.
    kinds
        Which cells may tell it.

    Returns
    -------
    FoundScale
        The width of a pixel, or None for the scale of the training images, and why.

    Examples
    --------
    >>> from hemascope import Classifier, find_scale
    >>> from hemascope.data.synthetic import draw_cell
    >>> cells = [draw_cell("monocyte", seed).resize((180, 180)) for seed in range(8)]
    >>> classifier = Classifier()
    >>> found = find_scale(cells, classifier.bundle)
    >>> print(found.note)  # half of the pixels, but the same field of view
    the images have the scale of the training images, by the red cells in 7 of 8 images
    >>> predictions = classifier.predict(cells, um_per_pixel=found.um_per_pixel)
    """
    if bundle.card.input.microns is None:
        return FoundScale(None, "")
    finder = _Finder(bundle.card.input, locator or Locator.from_bundle())
    views = _draw_views(images)
    for number, view in enumerate(views, 1):
        finder.look_at(view)
        if progress is not None:
            progress(number, len(views))
        if number % ROUND == 0 and (len(finder.by_red) >= ENOUGH or finder.is_hopeless):
            break
    if len(finder.by_red) >= max(1, LEAST_SHARE * finder.looked_at):
        return _describe("red", finder.by_red, finder.looked_at)
    if "white" in kinds:
        by_white, looked_at = finder.measure_white(views, bundle)
        if len(by_white) >= ENOUGH and 2 * len(by_white) >= looked_at:
            return _describe("white", by_white, looked_at)
    return FoundScale(None, NOT_TOLD)


@dataclass(frozen=True)
class _Told:
    """What one image tells: the width of its pixels, and how many times that of training it is."""

    um_per_pixel: float
    ratio: float


class _Finder:
    """The images that were looked at, and what their cells told."""

    def __init__(self, spec: InputSpec, locator: CellLocator) -> None:
        self.spec, self.locator = spec, locator
        self.looked_at = 0
        self.by_red: list[_Told] = []

    def look_at(self, view: View) -> None:
        """Measures the red cells around the cell."""
        try:
            with decoded(view.image) as opened:
                field = self.locator.locate(opened.image)
        except ImageError:  # whoever reads it next says why
            return
        self.looked_at += 1
        if field.scale is not None:
            width = field.scale.um_per_pixel * RED_BOX / RED_CELL_MICRONS
            self.by_red.append(self._told(width, (field.width, field.height)))

    @property
    def is_hopeless(self) -> bool:
        """Whether so many images show no red cells that the rest will not show them either."""
        return self.looked_at >= HOPELESS and not self.by_red

    def measure_white(self, views: Iterable[View], bundle: Bundle) -> tuple[list[_Told], int]:
        """What the white cells tell that views look at, and how many images could be read."""
        seen, sides, sizes, looked_at = [], [], [], 0
        for view in views:
            try:
                with decoded(view.image) as opened:
                    side = _white_side(self.locator, opened.image, view.centre)
                    size = opened.image.size
            except ImageError:
                continue
            looked_at += 1
            if side is not None:
                seen.append(view)
                sides.append(side)
                sizes.append(size)
        widths = _widths_by_class(seen, np.array(sides), bundle) if seen else []
        return list(map(self._told, widths, sizes)), looked_at

    def _told(self, um_per_pixel: float, size: tuple[int, int]) -> _Told:
        assert self.spec.microns is not None
        usual = self.spec.microns / (self.spec.crop * min(size))
        return _Told(um_per_pixel, um_per_pixel / usual)


def _widths_by_class(views: Sequence[View], sides: FloatArray, bundle: Bundle) -> list[float]:
    """The width of a pixel by each cell, whose box has sides of so many pixels, (N,).

    A cell of a class is taken to be as large as that class is in the mean; the classes are those
    that the model finds likely at the scale found before, until it stays.
    """
    classifier = Classifier(bundle)
    widths = WHITE_BOX / sides
    for _ in range(STEPS):
        width = float(np.clip(np.median(widths), *UM_PER_PIXEL))
        predictions = classifier.predict([replace(view, um_per_pixel=width) for view in views])
        widths = np.array([_likely_size(one) for one in predictions]) / sides
    return [float(width) for width in widths]


def _likely_size(prediction: Prediction) -> float:
    """The geometric mean of the sizes of a cell's classes, by their probabilities."""
    logs = [
        probability * math.log(CLASS_BOXES.get(name, WHITE_BOX))
        for name, probability in prediction.probabilities.items()
    ]
    return math.exp(sum(logs))


def _white_side(
    locator: CellLocator, image: Image.Image, centre: tuple[float, float] | None
) -> float | None:
    """The side of the square as large as the box of the white cell at a point, by default the
    middle; None where there is none."""
    margin = round(FRAME * min(image.size))
    x, y = centre or (image.width / 2, image.height / 2)
    field = locator.locate(add_frame(image, margin))
    white = [cell for cell in field.select("white") if _holds(cell, x + margin, y + margin)]
    if not white:
        return None
    x0, y0, x1, y1 = max(white, key=lambda cell: cell.score).box
    return float(np.sqrt((x1 - x0) * (y1 - y0)))


def _holds(cell: LocatedCell, x: float, y: float) -> bool:
    x0, y0, x1, y1 = cell.box
    return x0 <= x <= x1 and y0 <= y <= y1


def _describe(kind: Kind, told: Sequence[_Told], looked_at: int) -> FoundScale:
    """The median of what images told, in a sentence."""
    widths = np.array([one.um_per_pixel for one in told])
    ratio = float(np.median([one.ratio for one in told]))
    basis = f"by the {kind} cells in {len(told)} of {looked_at} images"
    measured = _median(widths)
    same = SAME_WHITE if kind == "white" else SAME_RED if len(told) >= ENOUGH else SAME_FEW
    if 1 / same < ratio < same:
        note = f"the images have the scale of the training images, {basis}"
        return FoundScale(None, note, measured, kind)
    # Rounded, so that the same images give the same number on each machine.
    width = float(f"{np.median(widths):.3g}")
    if not UM_PER_PIXEL[0] <= width <= UM_PER_PIXEL[1]:  # no microscope's
        return FoundScale(None, NOT_TOLD)
    note = f"{width:g} µm a pixel, {basis}"
    low, high = np.quantile(widths, (0.25, 0.75)).tolist()
    if kind == "white":
        note += (
            "; white cells differ in size, so that this may be 20 % off, and 40 % where images are "
            "cut close to the cell: give --um-per-pixel if you know it"
        )
    elif high > APART * low:
        note += (
            f"; half of the images are of other scales (below {low:.2g}, above {high:.2g}): list "
            "them in a manifest with a column um_per_pixel"
        )
    return FoundScale(width, note, measured, kind)


def _median(widths: FloatArray) -> Interval:
    """The median with its bootstrap interval."""
    draws = np.random.default_rng(0).choice(widths, (RESAMPLES, len(widths)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975)).tolist()
    return Interval(float(np.median(widths)), low, high)


def _draw_views(images: Sequence[ImageSource | View]) -> list[View]:
    """A random sample, with one cell of each file."""
    drawn: dict[str | int, View] = {}
    for index in np.random.default_rng(0).permutation(len(images)).tolist():
        image = images[index]
        view = image if isinstance(image, View) else View(image)
        drawn.setdefault(view.image if isinstance(view.image, str) else index, view)
        if len(drawn) == SAMPLE:
            break
    return list(drawn.values())
