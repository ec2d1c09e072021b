"""How wide a pixel is, as far as red cells around the cells of a folder tell.

A red cell in a dried smear is about 7.2 µm across. Only free, whole and round ones are measured:
those that overlap, touch the image's edge or are cut by a crop say nothing of their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from hemascope.arrays import FloatArray
from hemascope.data.external import RED_CELL_MICRONS
from hemascope.metrics.shapes import Shape, find_shapes
from hemascope.preprocess import ground_colour

SIDE = 200  # pixels that the longer side of an image is measured at
BLUR = 0.8  # standard deviation, in these pixels
STAINED, NUCLEUS = 0.05, 0.45  # optical density of green light of a red cell: above, and below
LEAST_ROUND, ROUND_AREA = 0.8, 0.08  # narrow over wide; most difference from an ellipse's area
LEAST_SIDE = 0.06  # of the image's longer side: a smaller shape is a platelet
LEAST_CELLS, PER_IMAGE = 10, 0.25  # red cells, in all and per image: else they are something else
RESAMPLES = 1000


@dataclass(frozen=True)
class Scale:
    """The width of a pixel in micrometres, from `red_cells` red cells, with its 95 % interval.

    `diameter` is their median in pixels. All but the number are None where there are too few.
    """

    red_cells: int
    diameter: float | None = None
    um_per_pixel: float | None = None
    low: float | None = None
    high: float | None = None


def measure_red_cells(image: Image.Image) -> list[float]:
    """The diameters, in pixels of the image, of the red cells in it that lie free and whole."""
    shrink = max(1.0, max(image.size) / SIDE)
    size = (max(1, round(image.width / shrink)), max(1, round(image.height / shrink)))
    small = image.resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(BLUR))
    ground = ground_colour(small)[1]
    green = np.asarray(small, dtype=np.float64)[:, :, 1]
    density = np.maximum(0, -np.log10(np.maximum(green, 1) / max(ground, 1)))
    mask = density > STAINED
    least = (LEAST_SIDE * max(size)) ** 2
    return [
        shrink * math.sqrt(4 * shape.area / math.pi)
        for shape in find_shapes(mask, round(least))
        if not shape.touches_edge(mask) and _is_round(shape) and _is_pale(shape, density)
    ]


def estimate_scale(diameters: list[float], images: int, seed: int = 0) -> Scale:
    """The scale from red cells' diameters in so many images; its interval is a bootstrap's, of
    their median."""
    if len(diameters) < max(LEAST_CELLS, PER_IMAGE * images):
        return Scale(len(diameters))
    values = np.array(diameters)
    drawn = np.random.default_rng(seed).choice(values, (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    middle = float(np.median(values))
    return Scale(
        len(diameters),
        middle,
        RED_CELL_MICRONS / middle,
        float(RED_CELL_MICRONS / high),
        float(RED_CELL_MICRONS / low),
    )


def _is_round(shape: Shape) -> bool:
    narrow, wide = sorted((shape.height, shape.width))
    ellipse = math.pi / 4 * narrow * wide
    return narrow >= LEAST_ROUND * wide and abs(shape.area / ellipse - 1) < ROUND_AREA


def _is_pale(shape: Shape, density: FloatArray) -> bool:
    return bool(density[shape.rows, shape.columns].max() < NUCLEUS)
