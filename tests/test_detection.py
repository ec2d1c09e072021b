"""Figures of located cells, against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from hemascope.metrics.detection import (
    FieldMatches,
    average_precision,
    match_boxes,
    match_field,
    measure_detection,
    overlaps,
)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, float).reshape(-1, 4)


def test_overlap_of_two_squares_is_a_seventh() -> None:
    shared = overlaps(boxes((0, 0, 2, 2)), boxes((1, 1, 3, 3), (0, 0, 2, 2), (5, 5, 6, 6)))
    assert shared == pytest.approx(np.array([[1 / 7, 1.0, 0.0]]))


def test_each_drawn_box_is_found_once_by_the_best_score() -> None:
    found = boxes((0, 0, 10, 10), (1, 0, 11, 10), (50, 50, 60, 60))
    drawn = boxes((0, 0, 10, 10), (100, 100, 110, 110))
    assert match_boxes(found, np.array([0.5, 0.9, 0.8]), drawn).tolist() == [-1, 0, -1]
    assert match_boxes(found, np.array([0.9, 0.5, 0.8]), drawn).tolist() == [0, -1, -1]
    assert match_boxes(boxes(), np.zeros(0), drawn).tolist() == []


def test_cells_at_the_border_are_passed_over() -> None:
    found = boxes((0, 0, 10, 10), (20, 20, 30, 30), (90, 0, 100, 10))
    drawn = boxes((0, 0, 10, 10), (20, 20, 30, 30))
    over = (np.array([True, False, True]), np.array([True, False]))
    matches = match_field(found, np.array([0.9, 0.8, 0.7]), drawn, over)
    assert (matches.drawn, matches.scores.tolist(), matches.is_right.tolist()) == (1, [0.8], [True])


def test_average_precision_is_that_of_scikit_learn_where_precision_falls() -> None:
    right = np.array([True, True, True, False, True, False, False, False])
    scores = np.linspace(0.9, 0.2, 8)
    ours = average_precision([FieldMatches(scores, right, 4)])
    assert ours == pytest.approx(average_precision_score(right, scores))
    missed = average_precision([FieldMatches(scores, right, 8)])
    assert missed == pytest.approx(ours / 2)  # four cells that were never found


def test_precision_at_a_recall_is_the_highest_at_it_or_beyond() -> None:
    fields = [FieldMatches(np.array([0.9, 0.8, 0.7]), np.array([False, True, True]), 2)]
    assert average_precision(fields) == pytest.approx(2 / 3)


def test_counts_are_compared_field_by_field() -> None:
    none, some = np.zeros(0), np.array([0.9, 0.8, 0.1])
    fields = [
        FieldMatches(some, np.array([True, True, False]), 4),
        FieldMatches(none, none.astype(bool), 0),
        FieldMatches(some, np.array([True, False, False]), 1),
    ]
    measured = measure_detection("red", fields, threshold=0.5)
    assert (measured.drawn, measured.found) == (5, 4)
    assert measured.recall.value == pytest.approx(3 / 5)
    assert measured.precision.value == pytest.approx(3 / 4)
    assert measured.count_error.value == pytest.approx((0.5 + 1) / 2)
    assert measured.count_bias.value == pytest.approx(-1 / 5)
    assert measured.recall.low is not None
    assert measured.recall.low <= 0.6 <= (measured.recall.high or 0)
