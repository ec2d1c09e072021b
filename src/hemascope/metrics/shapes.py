"""Connected shapes in a mask, with numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemascope.arrays import BoolArray, IntArray


@dataclass(frozen=True)
class Shape:
    """A connected part of a mask, its holes filled: its pixels (N,) by row and by column."""

    rows: IntArray
    columns: IntArray

    @property
    def area(self) -> int:
        return len(self.rows)

    @property
    def height(self) -> int:
        return int(np.ptp(self.rows)) + 1

    @property
    def width(self) -> int:
        return int(np.ptp(self.columns)) + 1

    def touches_edge(self, mask: BoolArray) -> bool:
        """Whether it reaches the mask's edge."""
        (last_row, last_column) = (side - 1 for side in mask.shape)
        return bool(
            self.rows.min() == 0
            or self.columns.min() == 0
            or self.rows.max() == last_row
            or self.columns.max() == last_column
        )


def find_shapes(mask: BoolArray, least: int) -> list[Shape]:
    """The parts of a mask (h,w) that are connected by sides, of `least` pixels or more."""
    filled = mask | fill_holes(mask)
    labels = label_parts(filled)
    order = np.argsort(labels.ravel(), kind="stable")
    counts = np.bincount(labels.ravel())
    starts = np.concatenate([[0], np.cumsum(counts)])
    shapes = []
    for k in range(1, len(counts)):
        if counts[k] >= least:
            places = order[starts[k] : starts[k + 1]]
            shapes.append(Shape(places // mask.shape[1], places % mask.shape[1]))
    return shapes


def fill_holes(mask: BoolArray) -> BoolArray:
    """What a mask (h,w) encloses: the parts around it that do not reach the edge."""
    ground = label_parts(~mask)
    edge = np.concatenate([ground[0], ground[-1], ground[:, 0], ground[:, -1]])
    return np.asarray((ground > 0) & ~np.isin(ground, np.unique(edge)))


def label_parts(mask: BoolArray) -> IntArray:
    """The number of each pixel's part (h,w), from 1; 0 outside the mask.

    The runs of each row are joined with those that they touch in the row above.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    rows, starts = np.nonzero(np.diff(padded, axis=1) == 1)
    _, ends = np.nonzero(np.diff(padded, axis=1) == -1)
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    first = np.searchsorted(rows, np.arange(height + 1)).tolist()
    begin, stop = starts.tolist(), ends.tolist()
    for row in range(1, height):
        above, run = first[row - 1], first[row]
        while above < first[row] and run < first[row + 1]:
            if begin[above] < stop[run] and begin[run] < stop[above]:
                parents[root(run)] = root(above)
            if stop[above] < stop[run]:
                above += 1
            else:
                run += 1
    roots = np.array([root(run) for run in range(len(rows))], dtype=np.int64)
    _, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros((height, width), dtype=np.int64)
    for place, start, end, number in zip(rows, starts, ends, numbers + 1, strict=True):
        labels[place, start:end] = number
    return labels
