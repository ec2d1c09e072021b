"""How wide a pixel is, from the red cells: their mean diameter in a dried smear is 7.2 µm.

The interval is of the median of the cells that were measured; that the red cells of a patient may
be smaller or larger than 7.2 µm on average is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hemascope.arrays import FloatArray
from hemascope.data.external import RED_CELL_MICRONS
from hemascope.preprocess import UM_PER_PIXEL
from hemascope.smear.records import LocatedCell, Scale

LEAST_CELLS, ENOUGH_ALONE = 3, 8
LEAST_SCORE = 0.4
LARGEST_ASPECT = 1.4  # of a red cell that is measured
LARGEST_OVERLAP = 0.15  # of its box with another's, as a part of its own
RESAMPLES = 400
WIDE = 1.25  # ratio of the ends of an interval that tells nothing


def measure_scale(cells: Sequence[LocatedCell]) -> tuple[Scale | None, str]:
    """The scale that a field's red cells tell, and a sentence where they tell none.

    Examples
    --------
    >>> from hemascope.smear.records import LocatedCell
    >>> from hemascope.smear.scale import measure_scale
    >>> row = [LocatedCell("red", (50 * k, 0, 50 * k + 40, 40), 0.9, False) for k in range(9)]
    >>> round(measure_scale(row)[0].um_per_pixel, 3)
    0.18
    """
    diameters = measured_diameters(cells)
    n = len(diameters)
    if n < LEAST_CELLS:
        return None, (
            f"the scale cannot be told: {n} whole red cells were found, {LEAST_CELLS} are needed"
        )
    draws = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    medians = np.median(diameters[draws], axis=1)
    low, high = (RED_CELL_MICRONS / np.quantile(medians, [0.975, 0.025])).tolist()
    scale = Scale(RED_CELL_MICRONS / float(np.median(diameters)), low, high, n)
    if scale.high > WIDE * scale.low:
        return None, (
            f"the scale cannot be told: the {n} red cells differ too much, which gives "
            f"{scale.low:.3g} to {scale.high:.3g} µm a pixel"
        )
    if not UM_PER_PIXEL[0] <= scale.um_per_pixel <= UM_PER_PIXEL[1]:
        return None, (
            f"the scale cannot be told: {scale.um_per_pixel:.3g} µm a pixel is no microscope's"
        )
    return scale, ""


def measured_diameters(cells: Sequence[LocatedCell]) -> FloatArray:
    """Diameters in pixels of the red cells that are whole, sure and round, and stand alone.

    Where fewer than eight stand alone, those that overlap count as well.
    """
    red = [cell for cell in cells if cell.kind == "red" and cell.score >= LEAST_SCORE]
    boxes = np.array([cell.box for cell in red], float).reshape(-1, 4)
    if not len(boxes):
        return np.zeros(0)
    sides = boxes[:, 2:] - boxes[:, :2]
    whole = ~np.array([cell.at_border for cell in red])
    is_round = sides.max(axis=1) < LARGEST_ASPECT * sides.min(axis=1)
    others = np.array([cell.box for cell in cells if cell.kind != "platelet"], float)
    alone = _most_covered(boxes, others) < LARGEST_OVERLAP
    diameters = np.sqrt(sides.prod(axis=1))
    chosen = whole & is_round & alone
    if chosen.sum() < ENOUGH_ALONE:
        chosen = whole & is_round
    return np.asarray(diameters[chosen])


def _most_covered(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """How much of each box (N,4) another one covers, as a part of it, (N,)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    shared[(boxes[:, None] == others[None]).all(axis=2)] = 0  # of itself
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(shared.max(axis=1) / np.maximum(areas, 1e-9))  # a box may have no width
