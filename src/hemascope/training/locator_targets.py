"""Crops → what the locator's maps should hold there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemascope.arrays import Float32Array
from hemascope.data.marked_fields import ALL_KINDS, MarkedCell
from hemascope.training.locator_fields import Crop

STRIDE = 4
SPREAD = 0.1  # standard deviation of a peak, as a fraction of the cell's side
LEAST_SPREAD = 0.5  # in steps of the map
LEAST_SEEN = 0.25  # of a cell's box; one with less of it in the crop is neither there nor not
LEAST_SIDE = 3.5  # pixels; smaller ones are neither
POINT_SIDE = 30.0  # pixels: taken for a cell of unknown size
NEAR_CENTRE = 0.3  # height of the peak from which on a place holds the cell's box


@dataclass(frozen=True)
class Targets:
    """Maps of one crop, s places a side.

    `heat` (K,s,s) has a peak of 1 at each centre, `counts` (K,s,s) is 1 where that is known.
    `boxes` (4,s,s) are x0, y0, x1, y1 in pixels where `weights` (s,s) are above 0.
    """

    heat: Float32Array
    counts: Float32Array
    boxes: Float32Array
    weights: Float32Array


def make_targets(crop: Crop) -> Targets:
    """The maps of one crop."""
    size = len(crop.image)
    side = size // STRIDE
    empty = crop.empty.reshape(side, STRIDE, side, STRIDE).mean(axis=(1, 3)) > 0.9
    heat = np.zeros((len(ALL_KINDS), side, side), np.float32)
    counts = np.stack([empty | (kind in crop.complete) for kind in ALL_KINDS]).astype(np.float32)
    boxes = np.zeros((4, side, side), np.float32)
    weights = np.zeros((side, side), np.float32)
    seen = [(cell, _cut(cell, size)) for cell in crop.cells]
    for cell, box in seen:  # first what is not known, then what is
        if box is None or _is_unclear(cell, box):
            _forget(counts[ALL_KINDS.index(cell.kind)], cell, side)
    for cell, box in seen:
        if box is not None and not _is_unclear(cell, box):
            _mark(ALL_KINDS.index(cell.kind), cell, box, heat, counts, boxes, weights)
    return Targets(heat, counts, boxes, weights)


def _cut(cell: MarkedCell, size: int) -> tuple[float, float, float, float] | None:
    """The part of a cell's box that is in the crop; a point's is around it. None for nothing."""
    half = POINT_SIDE / 2 if cell.is_point else 0.0
    x0, y0, x1, y1 = cell.x0 - half, cell.y0 - half, cell.x1 + half, cell.y1 + half
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(size)), min(y1, float(size))
    return (x0, y0, x1, y1) if x1 - x0 > 0 and y1 - y0 > 0 else None


def _is_unclear(cell: MarkedCell, box: tuple[float, float, float, float]) -> bool:
    x0, y0, x1, y1 = box
    if min(x1 - x0, y1 - y0) < LEAST_SIDE:
        return True
    whole = POINT_SIDE**2 if cell.is_point else (cell.x1 - cell.x0) * (cell.y1 - cell.y0)
    return (x1 - x0) * (y1 - y0) < LEAST_SEEN * whole


def _forget(counts: Float32Array, cell: MarkedCell, side: int) -> None:
    """Leaves out the places of a cell of which too little is seen."""
    x0, y0 = (min(side, max(0, int(c // STRIDE) - 1)) for c in (cell.x0, cell.y0))
    x1, y1 = (min(side, max(0, int(c // STRIDE) + 2)) for c in (cell.x1, cell.y1))
    counts[y0:y1, x0:x1] = 0


def _mark(
    kind: int,
    cell: MarkedCell,
    box: tuple[float, float, float, float],
    heat: Float32Array,
    counts: Float32Array,
    boxes: Float32Array,
    weights: Float32Array,
) -> None:
    """Adds one cell's peak, and its box at the places near its centre."""
    x0, y0, x1, y1 = box
    side = heat.shape[-1]
    column = min(side - 1, int((x0 + x1) / 2 / STRIDE))
    row = min(side - 1, int((y0 + y1) / 2 / STRIDE))
    spread_x, spread_y = (max(LEAST_SPREAD, SPREAD * s / STRIDE) for s in (x1 - x0, y1 - y0))
    reach_x, reach_y = int(3 * spread_x) + 1, int(3 * spread_y) + 1
    left, right = max(0, column - reach_x), min(side, column + reach_x + 1)
    top, bottom = max(0, row - reach_y), min(side, row + reach_y + 1)
    x, y = np.arange(left, right) - column, np.arange(top, bottom)[:, None] - row
    peak = np.exp(-(x**2) / (2 * spread_x**2) - y**2 / (2 * spread_y**2)).astype(np.float32)
    place = (slice(top, bottom), slice(left, right))
    np.maximum(heat[kind][place], peak, out=heat[kind][place])
    if cell.is_point:
        counts[kind][place] = 0  # where exactly the centre is, is not known
        counts[kind, row, column] = 1
        return
    counts[(slice(None), *place)] = 1
    nearest = (peak >= NEAR_CENTRE) & (peak > weights[place])
    weights[place][nearest] = peak[nearest]
    for index, corner in enumerate(box):
        boxes[index][place][nearest] = corner
