"""Limits for laboratories that no network was trained on: each against its own definition."""

from __future__ import annotations

import numpy as np
import pytest

from hemascope.classes import BLOOD_CELLS
from hemascope.post_training.left_out import RIGHT, LeftOutCells, fit_left_out

NAMES = BLOOD_CELLS.names
NEUTROPHIL, LYMPHOCYTE = NAMES.index("neutrophil"), NAMES.index("lymphocyte")


def draw_cells(
    shift: float = 0.0, noise: float = 2.0, n: int = 600, outliers: int = 0, seed: int = 0
) -> LeftOutCells:
    """Two laboratories; every class but the most frequent ones has `shift` too large a logit."""
    random = np.random.default_rng(seed)
    shares = np.full(8, 0.04)
    shares[NEUTROPHIL], shares[LYMPHOCYTE] = 0.5, 0.26
    targets = random.choice(8, size=2 * n, p=shares)
    logits = random.normal(0, noise, (2 * n, 8)) + 5 * np.eye(8)[targets]
    logits += shift * (1 - np.eye(8)[NEUTROPHIL] - np.eye(8)[LYMPHOCYTE])
    distances = random.normal(0, 1, 2 * n)
    if outliers:
        targets[:outliers], distances[:outliers] = -1, 8
    return LeftOutCells(logits, distances, targets, ("a",) * n + ("b",) * n)


def test_temperature_makes_confidence_and_accuracy_agree() -> None:
    cells = draw_cells()
    fit = fit_left_out(cells, NAMES)
    new = draw_cells(seed=1)
    probabilities = fit.probabilities(new)
    right = (probabilities.argmax(axis=1) == new.targets).mean()
    assert probabilities.max(axis=1).mean() == pytest.approx(right, abs=0.03)


def test_ninety_five_percent_of_the_rest_are_right() -> None:
    fit = fit_left_out(draw_cells(), NAMES)
    new = draw_cells(seed=2)
    rest = ~fit.sent_to_review(new)
    right = fit.probabilities(new).argmax(axis=1) == new.targets
    assert right.mean() < RIGHT - 0.03  # else the limit would be worth nothing
    assert right[rest].mean() == pytest.approx(RIGHT, abs=0.02)
    assert 0.5 < rest.mean() < 1


def test_sets_hold_the_class_of_ninety_five_percent() -> None:
    fit = fit_left_out(draw_cells(), NAMES)
    new = draw_cells(seed=3)
    held = fit.probabilities(new)[np.arange(len(new.targets)), new.targets] >= fit.set_threshold
    assert held.mean() == pytest.approx(0.95, abs=0.02)


def test_the_prior_is_used_as_far_as_it_helps() -> None:
    shifted = draw_cells(shift=2.0, seed=4)
    fit = fit_left_out(shifted, NAMES)
    offsets = np.array(fit.offsets)
    assert offsets[NEUTROPHIL] > offsets[LYMPHOCYTE] > offsets[NAMES.index("basophil")]
    plain = shifted.logits.argmax(axis=1) == shifted.targets
    fitted = fit.probabilities(shifted).argmax(axis=1) == shifted.targets
    assert fitted.mean() > plain.mean() + 0.01
    against = fit_left_out(draw_cells(shift=-3.0, seed=5), NAMES)
    assert against.offsets == (0.0,) * 8


def test_cells_unlike_the_known_ones_are_sent_to_review() -> None:
    cells = draw_cells(outliers=40, seed=6)
    fit = fit_left_out(cells, NAMES)
    assert fit.sent_to_review(cells)[:40].all()
    assert fit.distance_limit < 8


def test_a_hopeless_network_sends_everything_to_review() -> None:
    random = np.random.default_rng(0)
    cells = LeftOutCells(
        random.normal(0, 0.1, (200, 8)),
        np.zeros(200),
        random.integers(0, 8, 200),
        ("a",) * 100 + ("b",) * 100,
    )
    fit = fit_left_out(cells, NAMES)
    assert fit.sent_to_review(cells).mean() > 0.9


def test_each_laboratory_counts_alike() -> None:
    cells = draw_cells(n=100)
    large = LeftOutCells(
        np.concatenate([cells.logits, cells.logits[:100].repeat(5, axis=0)]),
        np.concatenate([cells.distances, np.zeros(500)]),
        np.concatenate([cells.targets, cells.targets[:100].repeat(5)]),
        (*cells.laboratories, *("a",) * 500),
    )
    even = large.of_classes()
    assert even.laboratories.count("a") == even.laboratories.count("b") == 100
