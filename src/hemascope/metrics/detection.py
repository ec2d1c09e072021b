"""Figures of cells that were found, against boxes that somebody drew; intervals over fields.

A found cell is right where its box and a drawn one of its kind overlap by half (intersection over
union), each drawn box counting once, the best scores first. Everingham et al., "The PASCAL Visual
Object Classes Challenge", IJCV 88 (2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemascope.arrays import BoolArray, FloatArray, IntArray
from hemascope.metrics.intervals import bootstrap
from hemascope.records import Estimate

HALF = 0.5


@dataclass(frozen=True)
class FieldMatches:
    """One field's found cells of a kind: scores (N,) and whether right (N,); the drawn ones."""

    scores: FloatArray
    is_right: BoolArray
    drawn: int


@dataclass(frozen=True)
class DetectionMetrics:
    """How well the cells of one kind were found on `fields` fields with `drawn` boxes.

    `average_precision` is the area under precision over recall, at every score. `count_error` is
    the mean over fields of |found - drawn| / drawn, and `count_bias` that of all fields together,
    with its sign.
    """

    kind: str
    fields: int
    drawn: int
    found: int
    recall: Estimate
    precision: Estimate
    average_precision: Estimate
    count_error: Estimate
    count_bias: Estimate


def overlaps(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """Intersection over union of boxes (N,4), x0, y0, x1, y1, with others (M,4): (N,M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = _areas(boxes)[:, None] + _areas(others)[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def match_boxes(
    boxes: FloatArray, scores: FloatArray, drawn: FloatArray, least: float = HALF
) -> IntArray:
    """For each found box (N,4) the index of the drawn one (M,4) that it is, or -1: (N,).

    The best scores choose first, each the free box that it overlaps most, by `least` at least.
    """
    chosen = np.full(len(boxes), -1, np.int64)
    if not len(boxes) or not len(drawn):
        return chosen
    shared = overlaps(boxes, drawn)
    for index in np.argsort(-scores, kind="stable"):
        best = int(np.argmax(shared[index]))
        if shared[index, best] >= least:
            chosen[index] = best
            shared[:, best] = -1
    return chosen


def match_field(
    boxes: FloatArray,
    scores: FloatArray,
    drawn: FloatArray,
    passed_over: tuple[BoolArray, BoolArray] | None = None,
) -> FieldMatches:
    """One field's matches.

    `passed_over` are (N,) found and (M,) drawn boxes that are neither right nor wrong, such as
    those that the border cuts off: a drawn one counts for nobody, nor what was found for it, nor a
    found one that is nothing.
    """
    indices = match_boxes(boxes, scores, drawn)
    is_right, kept, number = indices >= 0, np.ones(len(boxes), bool), len(drawn)
    if passed_over is not None:
        found_over, drawn_over = passed_over
        number = int((~drawn_over).sum())
        kept = ~found_over
        kept[is_right] = ~drawn_over[indices[is_right]]
    return FieldMatches(scores[kept], is_right[kept], number)


def measure_detection(
    kind: str, fields: Sequence[FieldMatches], threshold: float
) -> DetectionMetrics:
    """The figures over fields. Recall, precision and counts are of scores from `threshold` on."""
    drawn = np.array([field.drawn for field in fields], float)
    found = np.array([(field.scores >= threshold).sum() for field in fields], float)
    right = np.array(
        [(field.is_right & (field.scores >= threshold)).sum() for field in fields], float
    )
    has = drawn > 0
    errors = np.where(has, np.abs(found - drawn) / np.maximum(drawn, 1), 0)
    owner, is_right = _ranked(fields)

    def statistic(times: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = times @ right / (times @ drawn)
            precision = times @ right / (times @ found)
            error = times @ errors / (times @ has.astype(float))
            bias = times @ found / (times @ drawn) - 1
        precise = np.array([_area(row[owner], is_right, row @ drawn) for row in times])
        return np.stack([recall, precision, precise, error, bias], axis=1)

    figures = bootstrap(statistic, len(fields), resamples=400)
    return DetectionMetrics(kind, len(fields), int(drawn.sum()), int(found.sum()), *figures)


def average_precision(fields: Sequence[FieldMatches]) -> float:
    """The area under precision over recall of all found cells; NaN without any drawn box."""
    owner, is_right = _ranked(fields)
    drawn = float(sum(field.drawn for field in fields))
    return _area(np.ones(len(fields))[owner], is_right, drawn)


def _ranked(fields: Sequence[FieldMatches]) -> tuple[IntArray, BoolArray]:
    """All found cells, the best scores first: their field, and whether they are right."""
    scores = np.concatenate([field.scores for field in fields])
    owner = np.repeat(np.arange(len(fields)), [len(field.scores) for field in fields])
    is_right = np.concatenate([field.is_right for field in fields])
    order = np.argsort(-scores, kind="stable")
    return owner[order], is_right[order]


def _area(times: FloatArray, is_right: BoolArray, drawn: float) -> float:
    """The area, where each found cell counts so many times."""
    if not drawn:
        return float("nan")
    right = np.cumsum(times * is_right)
    precision = right / np.maximum(np.cumsum(times), 1e-12)
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a larger one
    return float((highest * times * is_right).sum() / drawn)


def _areas(boxes: FloatArray) -> FloatArray:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
