"""The locator's maps → cells with scores and boxes; numpy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hemascope.arrays import BoolArray, Float32Array, FloatArray, IntArray
from hemascope.bundle.locator_bundle import LocatorCard
from hemascope.metrics.detection import overlaps

SAME_CELL, SAME_WHITE_CELL = 0.6, 0.4  # overlap from which on two boxes are one cell
LARGEST_LOGARITHM = 4.0


class Found(NamedTuple):
    """N cells: the index of their kind (N,), their scores (N,) and their boxes (N,4)."""

    kinds: IntArray
    scores: FloatArray
    boxes: FloatArray

    def take(self, chosen: BoolArray | IntArray) -> Found:
        """Some of the cells."""
        return Found(self.kinds[chosen], self.scores[chosen], self.boxes[chosen])


def join(parts: list[Found]) -> Found:
    """The cells of several parts, one after the other."""
    if not parts:
        return Found(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))
    return Found(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def find_peaks(maps: Float32Array, card: LocatorCard, thresholds: FloatArray) -> Found:
    """The cells in the maps (K+4,h,w) of one image, boxes in its pixels.

    A cell is a place whose score is the highest among its eight neighbours of the same kind, and
    not below the threshold (K,) of its kind.
    """
    kinds = len(card.kinds)
    logits = maps[:kinds]
    limits = np.log(thresholds) - np.log1p(-np.minimum(thresholds, 1 - 1e-9))
    is_peak = (logits >= limits[:, None, None]) & (logits >= _highest_around(logits))
    kind, row, column = np.nonzero(is_peak)
    x_off, y_off, log_width, log_height = maps[kinds:, row, column].astype(np.float64)
    x = (column + 0.5 + x_off) * card.stride
    y = (row + 0.5 + y_off) * card.stride
    sides = np.clip([log_width, log_height], -LARGEST_LOGARITHM, LARGEST_LOGARITHM)
    half_width, half_height = np.exp(sides) * card.typical / 2
    boxes = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)
    scores = 1 / (1 + np.exp(-logits[kind, row, column].astype(np.float64)))
    return Found(kind.astype(np.int64), scores, boxes)


def _highest_around(maps: Float32Array) -> Float32Array:
    """The highest value among each place and its eight neighbours, (K,h,w)."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    rows = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    highest: Float32Array = np.maximum(np.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])
    return highest


def drop_doubles(found: Found, card: LocatorCard) -> Found:
    """The cells without those that are another's, by the overlap of their boxes, best score first.

    Two of one kind are one cell from an overlap of 0.6 on, and so are a white and a red cell; two
    white cells, which are never on each other, from 0.4 on.
    """
    order = np.argsort(-found.scores, kind="stable")
    found = found.take(order)
    kept: list[int] = []
    is_platelet = found.kinds == card.kinds.index("platelet")
    is_white = found.kinds == card.kinds.index("white")
    alive = np.ones(len(order), bool)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    reach = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0)
    for index in range(len(order)):
        if not alive[index]:
            continue
        kept.append(index)
        near = alive & (np.abs(centres - centres[index]).max(axis=1) < reach[index])
        near[: index + 1] = False
        near &= is_platelet == is_platelet[index]
        (candidates,) = np.nonzero(near)
        if len(candidates):
            shared = overlaps(found.boxes[index : index + 1], found.boxes[candidates])[0]
            both_white = is_white[index] & is_white[candidates]
            alive[candidates[shared > np.where(both_white, SAME_WHITE_CELL, SAME_CELL)]] = False
    return found.take(np.array(kept, np.int64))
