"""Locator: a smear field of any size and magnification → its cells, and its scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from hemascope.bundle.locator_bundle import LocatorBundle, LocatorEngine, read_locator
from hemascope.data.external import RED_CELL_MICRONS
from hemascope.decoding import ImageSource, decoded
from hemascope.errors import ImageError
from hemascope.preprocess import UM_PER_PIXEL
from hemascope.smear.peaks import Found
from hemascope.smear.records import Kind, LocatedCell, LocatedField, Scale
from hemascope.smear.scale import measure_scale
from hemascope.smear.views import FieldView

AT_BORDER = 0.06  # of a red cell's diameter: a box that ends nearer to the border touches it
LEAST_SEEN = 0.4  # of a red cell's diameter: with less of it on the field, it is no cell there
NO_CELL = "the scale cannot be told: no cell was found"


class Locator:
    """Finds the white cells, red cells and platelets of smear fields. Threads can share it.

    A field may be of any size and magnification: the red cells tell the scale that the network is
    given. A locator can be pickled and copied, and used in a process that was forked off.

    Parameters
    ----------
    bundle
        A LocatorBundle; `Locator.from_bundle()` takes the one that comes with the package.
    threads
        How many processors to use; by default as many as the process may.

    Raises
    ------
    BundleError
        For a locator that cannot be used.
    ValueError
        For fewer than one processor.

    Examples
    --------
    >>> from hemascope import Locator
    >>> from hemascope.data.synthetic_fields import draw_field
    >>> field = Locator.from_bundle().locate(draw_field(seed=1, white=2).image)
    >>> len(field.select("white"))
    2
    """

    def __init__(self, bundle: LocatorBundle, threads: int | None = None) -> None:
        self.bundle, self.card = bundle, bundle.card
        self._asked_threads = threads
        self.engine = LocatorEngine(bundle, threads)
        self._thresholds = np.array([self.card.thresholds[kind] for kind in self.card.kinds])

    def __reduce__(self) -> tuple[type[Locator], tuple[LocatorBundle, int | None]]:
        """A copy, or what arrives in another process, is made anew of the bundle."""
        return Locator, (self.bundle, self._asked_threads)

    @classmethod
    def from_bundle(cls, folder: Path | None = None, threads: int | None = None) -> Locator:
        """The locator in a folder; by default, the one that comes with the package."""
        return cls(read_locator(folder), threads)

    def locate(
        self, image: ImageSource, um_per_pixel: float | None = None, path: str = ""
    ) -> LocatedField:
        """The cells of one field, those with the best scores first.

        `um_per_pixel` is the field's scale, where it is known; else the red cells tell it. `path`
        is what the field is called in the result, by default the image's path if it is one. Raises
        ImageError for an image that cannot be read, and ValueError for a scale out of range.
        """
        low, high = UM_PER_PIXEL
        if um_per_pixel is not None and not low <= um_per_pixel <= high:
            raise ValueError(f"a pixel must be {low:g} to {high:g} micrometres wide")
        name = path or (str(image) if isinstance(image, (str, Path)) else "")
        with decoded(image) as opened:
            return self._locate(opened.image, um_per_pixel, name)

    def stream(
        self, paths: Iterable[str | Path], um_per_pixel: float | None = None
    ) -> Iterator[LocatedField]:
        """Fields in the order of their paths, any number of them.

        One that cannot be read has no cells, and its status says why.
        """
        for path in paths:
            try:
                yield self.locate(path, um_per_pixel)
            except ImageError as error:
                yield LocatedField(str(path), 0, 0, (), None, "", str(error))

    def scale_of(self, image: ImageSource) -> tuple[Scale | None, str]:
        """The scale of an image, of a single cell as well, by the red cells in it.

        Where they do not tell it, None and a sentence that says why.
        """
        field = self.locate(image)
        return field.scale, field.scale_note

    def _locate(self, image: Image.Image, um_per_pixel: float | None, path: str) -> LocatedField:
        view = FieldView(image, self.engine, self._thresholds)
        if um_per_pixel is None:
            zoom = view.find_zoom()
            if zoom is None:
                return LocatedField(path, *image.size, (), None, NO_CELL)
            found = view.find_cells(zoom)
            better = view.refine_zoom(zoom, found)
            if better != zoom:
                zoom, found = better, view.find_cells(better)
        else:
            zoom = self.card.red_diameter * um_per_pixel / RED_CELL_MICRONS
            found = view.find_cells(zoom)
        found = found.take(found.scores >= self._thresholds[found.kinds])
        cells = _as_cells(found, self.card.kinds, image.size, self.card.red_diameter / zoom)
        scale, note = measure_scale(cells)
        return LocatedField(path, *image.size, cells, scale, note)


def _as_cells(
    found: Found, kinds: tuple[str, ...], size: tuple[int, int], red_diameter: float
) -> tuple[LocatedCell, ...]:
    """Cells as records, without slivers of red cells at the border.

    The red cells' diameter says how near to the border is at it. Those who draw boxes leave out a
    cell of which less than 0.4 of the diameter is seen; decision 19 has the figures.
    """
    width, height = size
    near = AT_BORDER * red_diameter
    cells = []
    for kind, score, box in zip(found.kinds, found.scores, found.boxes.tolist(), strict=True):
        x0, y0, x1, y1 = box
        at_border = min(x0, y0, width - x1, height - y1) < near
        name = cast(Kind, kinds[kind])
        if name == "red" and at_border and min(x1 - x0, y1 - y0) < LEAST_SEEN * red_diameter:
            continue
        cells.append(LocatedCell(name, (x0, y0, x1, y1), float(score), at_border))
    return tuple(cells)
