"""The stained parts of a field, by classical means: what is ground, and isolated round cells."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from hemascope.arrays import BoolArray, FloatArray, ImageArray
from hemascope.data.marked_fields import MarkedCell, MarkedField
from hemascope.preprocess import ground_colour

GROUND_SHARE = 0.3  # of the threshold between ground and stain; paler is surely ground
STAINED_SHARE = 0.6  # darker is stained, the pale rim of a cell as well
LEAST_FILL, LARGEST_ASPECT = 0.7, 1.6  # of a round cell in its box
AREAS = (0.5, 1.5)  # of the median
LEAST_AREA = 300.0  # pixels; smaller ones are platelets or dirt


def stain_density(image: ImageArray) -> FloatArray:
    """The largest optical density (h,w) among the channels of an image (h,w,3), over the ground."""
    from PIL import Image

    ground = ground_colour(Image.fromarray(image))
    density = -np.log(np.clip(image.astype(np.float64), 1, None) / np.maximum(ground, 1))
    return np.asarray(np.clip(density.max(axis=2), 0, 2))


def threshold(values: FloatArray) -> float:
    """What separates two groups of values best. Otsu, IEEE Trans. SMC 9 (1979)."""
    counts, edges = np.histogram(values, 256)
    share, centres = counts / counts.sum(), (edges[1:] + edges[:-1]) / 2
    weight, mean = np.cumsum(share), np.cumsum(share * centres)
    between = (mean[-1] * weight - mean) ** 2 / (weight * (1 - weight) + 1e-9)
    return float(centres[np.argmax(between)])


def find_ground(image: ImageArray) -> BoolArray:
    """Where (h,w) there is surely no cell: pale, and away from anything stained."""
    from scipy import ndimage

    density = ndimage.gaussian_filter(stain_density(image), 1.0)
    stained = density > GROUND_SHARE * threshold(density)
    return np.asarray(~ndimage.binary_dilation(ndimage.binary_fill_holes(stained), iterations=2))


def outline_red_cells(field: MarkedField, image: ImageArray) -> MarkedField:
    """A field whose red cells are points, with boxes for those that stand alone and are round.

    Isolated round parts of the same size as those with a point are red cells as well.
    """
    from scipy import ndimage

    density = ndimage.gaussian_filter(stain_density(image), 1.0)
    filled = ndimage.binary_fill_holes(density > STAINED_SHARE * threshold(density))
    labels, number = ndimage.label(filled)
    areas = ndimage.sum(filled, labels, range(1, number + 1))
    height, width = labels.shape
    parts = [_part_at(labels, cell, width, height) for cell in field.cells]
    points = Counter(parts)
    round_ones: dict[int, tuple[float, tuple[int, int, int, int]]] = {}
    for part, place in enumerate(ndimage.find_objects(labels), 1):
        box = (place[1].start, place[0].start, place[1].stop, place[0].stop)
        if _is_round(box, areas[part - 1], width, height) and points[part] <= 1:
            round_ones[part] = (float(areas[part - 1]), box)
    marked = [area for part, (area, _) in round_ones.items() if points[part]]
    if not marked:
        return field
    median = float(np.median(marked))
    alone = {
        part: box for part, (area, box) in round_ones.items() if AREAS[0] < area / median < AREAS[1]
    }
    rest = [cell for cell, part in zip(field.cells, parts, strict=True) if part not in alone]
    boxes = [MarkedCell("red", *box) for box in alone.values()]
    return replace(field, cells=(*boxes, *rest))


def _part_at(labels: Any, cell: MarkedCell, width: int, height: int) -> int:
    x, y = cell.centre
    return int(labels[min(int(y), height - 1), min(int(x), width - 1)])


def _is_round(box: tuple[int, int, int, int], area: float, width: int, height: int) -> bool:
    """Whether a part fills its box as a disc does, and does not touch the border."""
    x0, y0, x1, y1 = box
    inside = x0 > 1 and y0 > 1 and x1 < width - 1 and y1 < height - 1
    aspect = max((x1 - x0) / (y1 - y0), (y1 - y0) / (x1 - x0))
    fill = area / ((x1 - x0) * (y1 - y0))
    return inside and fill > LEAST_FILL and aspect < LARGEST_ASPECT and area > LEAST_AREA
