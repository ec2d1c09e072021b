"""ScaleFinder: the scale of each of many images, from the red cells around the cell in it."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from hemascope.arrays import ProgressCallback
from hemascope.data.manifest import Manifest
from hemascope.errors import ImageError
from hemascope.preprocess import View
from hemascope.smear.locate import Locator


class ScaleFinder:
    """Measures images one by one, and counts in how many the red cells told the scale.

    An image whose red cells do not tell it has none, and is then taken to be of the scale of the
    training images.

    Examples
    --------
    >>> from hemascope.data.synthetic_fields import draw_field
    >>> from hemascope.smear.locate import Locator
    >>> from hemascope.smear.measure_scales import ScaleFinder
    >>> draw_field(seed=3, plain=True).image.save("field.png")
    >>> finder = ScaleFinder(Locator.from_bundle())
    >>> finder.view("field.png").um_per_pixel is not None
    True
    """

    def __init__(self, locator: Locator) -> None:
        self.locator = locator
        self.found: list[float] = []
        self.not_told = 0

    def measure(self, path: str) -> float | None:
        """Micrometres a pixel of an image; None where it is not told, or cannot be read."""
        try:
            scale, _ = self.locator.scale_of(path)
        except ImageError:  # whoever reads it next says why
            return None
        if scale is None:
            self.not_told += 1
            return None
        self.found.append(scale.um_per_pixel)
        return scale.um_per_pixel

    def view(self, path: str) -> View:
        """The middle of an image, at its scale."""
        return View(path, self.measure(path))

    def fill(self, manifest: Manifest, progress: ProgressCallback | None = None) -> Manifest:
        """The manifest with the scales of the rows that have none; each image is measured once."""
        paths = sorted({row.path for row in manifest.rows if row.um_per_pixel is None})
        scales: dict[str, float | None] = {}
        for number, path in enumerate(paths, 1):
            scales[path] = self.measure(str(manifest.root / path))
            if progress is not None:
                progress(number, len(paths))
        rows = (
            replace(row, um_per_pixel=scales[row.path]) if row.um_per_pixel is None else row
            for row in manifest.rows
        )
        return replace(manifest, rows=tuple(rows))

    @property
    def usual(self) -> float | None:
        """The median of the scales that were told."""
        return median(self.found) if self.found else None

    def __str__(self) -> str:
        """In how many images the scale was told, and what became of the others."""
        told, all_of_them = len(self.found), len(self.found) + self.not_told
        if self.usual is None:
            return (
                f"red cells told the scale of none of {all_of_them} images; they are taken to be "
                "of the scale of the training images"
            )
        rest = ""
        if self.not_told:
            rest = (
                f"; the other {self.not_told} are taken to be of the scale of the training images"
            )
        return (
            f"red cells told the scale of {told} of {all_of_them} images, {self.usual:.3g} µm a "
            f"pixel in the middle{rest}"
        )
