"""A field's image at the locator's scale: windows of it, and the zoom that gives that scale.

A zoom is how many pixels of the network one pixel of the image becomes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from hemascope.arrays import BoolArray, FloatArray, ImageArray
from hemascope.bundle.locator_bundle import LocatorEngine
from hemascope.preprocess import ground_colour
from hemascope.smear.peaks import Found, drop_doubles, find_peaks, join
from hemascope.smear.records import Box

MULTIPLE = 16
TILE, OVERLAP = 768, 128  # pixels of the network; a large white cell is 100
FIRST_SIDE, LAST_SIDE, PART = 192, 6144, 640  # of the whole image, and of the part looked at
SMALL_SIDE = 250  # pixels; a smaller image may show one cell only, and is looked at from farther
SMALL = 64  # pixels a side of the image in which that part is chosen
MOST_STAIN = 40.0  # grey levels under the ground; what is darker says no more of cells
LARGEST_ZOOM = 4.0
FITTING = (0.6, 1.6)  # diameters over the network's, of red cells that speak for a zoom
WHITE_DIAMETER = 1.9  # of a white cell, over a red one's
WHITE_SUPPORT = 0.3  # how much a white cell says of the zoom, beside a red one
LEAST_RED = 3  # red cells; with fewer, white ones say how large red ones are as well
LEAST_SCORE = 0.45  # of a cell that speaks for a zoom; from too far and too near few reach it
ENOUGH = 0.05  # support from which on no larger zoom is tried once it falls
CLEAR, LARGE_ENOUGH = 0.15, 0.7  # support, and diameter over the network's, that end the search
REFINED = 0.15  # logarithm of the ratio from which on the zoom is taken anew


class FieldView:
    """A field's image, and what a locator's network sees of it. Boxes are in the image's pixels."""

    def __init__(self, image: Image.Image, engine: LocatorEngine, thresholds: FloatArray) -> None:
        self.image, self.engine = image, engine
        # The zoom must not hang on the thresholds, so cells below these are kept until it is found.
        self.thresholds = np.minimum(thresholds, LEAST_SCORE)
        small = image.resize((SMALL, SMALL), Image.Resampling.BOX, reducing_gap=2.0)
        red, green, blue = np.rint(ground_colour(small)).astype(int).tolist()
        self._ground = (red, green, blue)
        stain = np.abs(np.asarray(small, float) - self._ground).mean(axis=2)
        self._stain = np.minimum(stain, MOST_STAIN)

    def find_cells(self, zoom: float) -> Found:
        """All cells, at a zoom; a large field in overlapping tiles, where each cell is found once.

        A tile's cells are those whose centre lies nearer to its middle than to another tile's.
        """
        columns = _cuts(self.image.width * zoom)
        rows = _cuts(self.image.height * zoom)
        parts = []
        for top, bottom in rows:
            for left, right in columns:
                box = (left / zoom, top / zoom, right / zoom, bottom / zoom)
                found = self._find_in(box, zoom)
                parts.append(found.take(self._owned(found, box, zoom)))
        return drop_doubles(join(parts), self.engine.card)

    def find_zoom(self) -> float | None:
        """The zoom at which red cells have the network's size; None where no cell is found.

        The image is looked at from far first, and then twice as near each time, a part of it only
        where that is large. The zoom is taken from where cells of a fitting size cover most of
        what is seen: from too near, parts of cells look like cells, but do not cover them.
        """
        longest = max(self.image.size)
        best, best_support = None, 0.0
        side = FIRST_SIDE if longest >= SMALL_SIDE else longest / 2
        while side <= min(LAST_SIDE, 2 * longest):
            zoom = side / longest
            found = self._find_in(self._stained_part(PART / zoom), zoom)
            support, diameter = self._support(found, zoom)
            if support > best_support:
                best, best_support = self._zoom_for(diameter), support
                fits = diameter * zoom > LARGE_ENOUGH * self.engine.card.red_diameter
                if support > CLEAR and fits:
                    break
            elif best_support >= ENOUGH:
                break
            side *= 2
        return best

    def refine_zoom(self, zoom: float, found: Found) -> float:
        """The zoom that the red cells found at one ask for; the same where it fits."""
        support, diameter = self._support(found, zoom)
        better = self._zoom_for(diameter) if support else zoom
        return better if abs(np.log(better / zoom)) > REFINED else zoom

    def _zoom_for(self, diameter: float) -> float:
        return min(LARGEST_ZOOM, self.engine.card.red_diameter / diameter)

    def _support(self, found: Found, zoom: float) -> tuple[float, float]:
        """How much of what is seen cells of a fitting size cover, and a red cell's diameter."""
        kinds, typical = self.engine.card.kinds, self.engine.card.red_diameter / zoom
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        diameters = np.sqrt(np.clip(sides, 1e-6, None).prod(axis=1))
        is_white = found.kinds == kinds.index("white")
        diameters = np.where(is_white, diameters / WHITE_DIAMETER, diameters)
        fits = (diameters > FITTING[0] * typical) & (diameters < FITTING[1] * typical)
        fits &= (found.kinds != kinds.index("platelet")) & (found.scores >= LEAST_SCORE)
        if not fits.any():
            return 0.0, typical
        weights = np.where(is_white, WHITE_SUPPORT, 1.0) * found.scores
        seen = min(self.image.width, PART / zoom) * min(self.image.height, PART / zoom)
        red = fits & ~is_white
        chosen = red if red.sum() >= LEAST_RED else fits
        support = float((weights * diameters**2)[fits].sum() / seen)
        return support, float(np.median(diameters[chosen]))

    def _stained_part(self, side: float) -> Box:
        """The part, at most so many of the image's pixels a side, where most is stained."""
        width, height = self.image.size
        wide, high = min(side, width), min(side, height)
        columns, rows = (max(1, round(SMALL * s / t)) for s, t in ((wide, width), (high, height)))
        windows = np.lib.stride_tricks.sliding_window_view(self._stain, (rows, columns))
        means = windows.mean(axis=(2, 3))
        top, left = np.unravel_index(int(np.argmax(means)), means.shape)
        x0 = min(float(left) / SMALL * width, width - wide)
        y0 = min(float(top) / SMALL * height, height - high)
        return x0, y0, x0 + wide, y0 + high

    def _find_in(self, box: Box, zoom: float) -> Found:
        """The cells in a window of the image, in the image's pixels."""
        window = self._window(box, zoom)
        maps = self.engine.maps(window[None])[0]
        found = find_peaks(maps, self.engine.card, self.thresholds)
        moved = found.boxes / zoom + np.array([box[0], box[1], box[0], box[1]])
        size = np.array([*self.image.size, *self.image.size], float)
        boxes = np.clip(moved, 0, size)
        sides = boxes[:, 2:] - boxes[:, :2]
        return Found(found.kinds, found.scores, boxes).take(sides.min(axis=1, initial=1e9) > 0)

    def _window(self, box: Box, zoom: float) -> ImageArray:
        """A window as (H,W,3), filled up with ground to sides that the network takes."""
        x0, y0, x1, y1 = box
        width, height = max(1, round((x1 - x0) * zoom)), max(1, round((y1 - y0) * zoom))
        part = self.image.resize(
            (width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0
        )
        shape = (-(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE, 3)
        window = np.empty(shape, np.uint8)
        window[:] = self._ground
        window[:height, :width] = np.asarray(part)
        return window

    def _owned(self, found: Found, box: Box, zoom: float) -> BoolArray:
        """Which cells (N,) of a tile are its own, and not the next one's."""
        centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        own = np.ones(len(centres), bool)
        half = OVERLAP / zoom / 2
        for axis, side in enumerate(self.image.size):
            low, high = box[axis], box[axis + 2]
            if low > 0:
                own &= centres[:, axis] >= low + half
            if high < side - 1e-6:
                own &= centres[:, axis] < high - half
        return own


def _cuts(side: float) -> list[tuple[float, float]]:
    """A side of an image in the network's pixels → the overlapping parts that tiles take."""
    if side <= TILE:
        return [(0.0, side)]
    number = int(np.ceil((side - OVERLAP) / (TILE - OVERLAP)))
    step = (side - OVERLAP) / number
    return [(index * step, index * step + step + OVERLAP) for index in range(number)]
