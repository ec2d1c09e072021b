"""Thresholds of a locator's scores, chosen on the fields that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hemascope.arrays import FloatArray, ProgressCallback
from hemascope.bundle.locator_bundle import LocatorBundle
from hemascope.data.marked_fields import MarkedCell, MarkedField
from hemascope.metrics.detection import FieldMatches, match_field
from hemascope.smear.locate import Locator
from hemascope.smear.records import KINDS, Kind, LocatedField

LEAST = 0.05
CHOICES = tuple(np.round(np.arange(LEAST, 0.801, 0.01), 2).tolist())


def choose_thresholds(
    bundle: LocatorBundle, fields: Sequence[MarkedField], progress: ProgressCallback | None = None
) -> LocatorBundle:
    """The locator with the threshold for each kind that gives the highest F1 on marked fields.

    A kind is judged on the fields where all of its cells are marked. Whole fields count equally:
    F1 is of all their cells together.
    """
    open_to_all = replace(bundle.card, thresholds=dict.fromkeys(bundle.card.kinds, LEAST))
    locator = Locator(replace(bundle, card=open_to_all))
    located = []
    for number, field in enumerate(fields, 1):
        located.append(locator.locate(field.path))
        if progress is not None:
            progress(number, len(fields))
    chosen = dict(bundle.card.thresholds)
    for kind in KINDS:
        judged = [
            match_cells(found, field.cells, kind)
            for found, field in zip(located, fields, strict=True)
            if kind in field.complete
        ]
        if judged:
            chosen[kind] = best_threshold(judged)
    return replace(bundle, card=replace(bundle.card, thresholds=chosen))


def best_threshold(fields: Sequence[FieldMatches]) -> float:
    """The choice with the highest F1; the middle one where several are as good."""
    drawn = sum(field.drawn for field in fields)
    scores = np.concatenate([field.scores for field in fields])
    is_right = np.concatenate([field.is_right for field in fields])
    f1 = np.array(
        [2 * is_right[scores >= t].sum() / max(1, (scores >= t).sum() + drawn) for t in CHOICES]
    )
    (best,) = np.nonzero(f1 >= f1.max() - 1e-12)
    return float(CHOICES[int(best[len(best) // 2])])


def match_cells(
    found: LocatedField, marked: Sequence[MarkedCell], kind: Kind, whole_only: bool = False
) -> FieldMatches:
    """One field's found cells of a kind against the marked ones.

    With `whole_only`, cells that touch the border count neither as right nor as wrong.
    """
    cells = found.select(kind)
    drawn = [cell for cell in marked if cell.kind == kind]
    boxes, theirs = _boxes([cell.box for cell in cells]), _boxes([cell.box for cell in drawn])
    scores = np.array([cell.score for cell in cells], float)
    if not whole_only:
        return match_field(boxes, scores, theirs)
    size = np.array([found.width, found.height], float)
    touching = np.asarray(np.hstack([theirs[:, :2] < 2, theirs[:, 2:] > size - 2]).any(axis=1))
    at_border = np.array([cell.at_border for cell in cells], bool)
    return match_field(boxes, scores, theirs, (at_border, touching))


def _boxes(boxes: Sequence[tuple[float, float, float, float]]) -> FloatArray:
    return np.array(boxes, float).reshape(-1, 4)
