"""Confusion: how often a model names each class right or wrong, and shares corrected for it.

A model that calls 1.6 % of the neutrophils immature granulocytes finds immature granulocytes in
every blood. From counts of names and a Confusion that was measured on labelled cells, the shares
are estimated that make these counts likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemascope.arrays import BoolArray, FloatArray, IntArray
from hemascope.records import Interval

LEAST_CELLS = 10  # labelled cells of a class, below which nothing is corrected
JEFFREYS = 0.5  # cells of each name that are taken to have been counted beforehand
LABELLED = 1.0  # cells of each label, spread over all outcomes, likewise
DRAWS = 2000
STEPS = 100


@dataclass(frozen=True)
class Confusion:
    """What became of labelled cells that the model was not trained on.

    `counts` (C,C) has a row for each label and a column for each name that was given, in the order
    of the model's classes. `unidentified` (C,) counts, by label, the cells that a person would have
    to look at and that got no name for this reason.
    """

    measured_on: str
    counts: tuple[tuple[int, ...], ...]
    unidentified: tuple[int, ...]


def measure_confusion(
    measured_on: str, targets: IntArray, named: IntArray, review: BoolArray, num_classes: int
) -> Confusion:
    """The Confusion of N labelled cells: targets, named, and which are for review, (N,) each."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (targets[~review], named[~review]), 1)
    unidentified = np.bincount(targets[review], minlength=num_classes)
    return Confusion(measured_on, tuple(map(tuple, counts.tolist())), tuple(unidentified.tolist()))


def is_measured(confusion: Confusion, index: int) -> bool:
    """Whether enough cells of a class are labelled to say what becomes of it."""
    return sum(confusion.counts[index]) + confusion.unidentified[index] >= LEAST_CELLS


def correct_shares(
    confusion: Confusion, chosen: Sequence[int], counts: Sequence[int], seed: int = 0
) -> FloatArray | None:
    """Draws of the shares of K classes that a count of names allows, (DRAWS + 1,K).

    `chosen` are the indices of the classes, and `counts` how often each was named; a cell that was
    named otherwise, or not at all, is not among them. The first row is the estimate itself. In the
    others, the count and each row of the confusion are drawn from their Dirichlet distributions,
    so that they spread as far as both leave the shares open; the priors are Jeffreys' for the count
    and one cell in all for each row, since most confusions never happen. Cells without a
    name are allowed for: a class that is harder to name is rarer among the named cells than in the
    blood. None where no cell was named, or a class is not measured.
    """
    labelled = np.array(confusion.counts, dtype=np.float64)[list(chosen)]
    inside = labelled[:, list(chosen)]
    lost = (
        labelled.sum(axis=1) - inside.sum(axis=1) + np.array(confusion.unidentified)[list(chosen)]
    )
    outcomes = np.concatenate([inside, lost[:, None]], axis=1)  # (K,K+1)
    seen = np.array(counts, dtype=np.float64)
    if not seen.sum() or not all(is_measured(confusion, index) for index in chosen):
        return None
    random = np.random.default_rng(seed)
    outcomes = outcomes + LABELLED / outcomes.shape[1]
    rates = _divide(random.gamma(outcomes, size=(DRAWS, *outcomes.shape)))
    shares = _divide(random.gamma(seen + JEFFREYS, size=(DRAWS, len(seen))))
    rates = np.concatenate([_divide(outcomes)[None], rates])[:, :, :-1]
    shares = np.concatenate([_divide(seen)[None], shares])
    return _unmix(rates, shares)


def summarise(draws: FloatArray) -> tuple[Interval, ...]:
    """The estimate and the 95 % interval of each column of draws, the first row the estimate."""
    low, high = np.percentile(draws[1:], (2.5, 97.5), axis=0)
    low, high = np.minimum(low, draws[0]), np.maximum(high, draws[0])
    return tuple(map(Interval, draws[0].tolist(), low.tolist(), high.tolist()))


def _unmix(rates: FloatArray, shares: FloatArray) -> FloatArray:
    """Shares of the classes (R,K) from shares of the names (R,K), rates (R,K,K) of true by named.

    The likeliest shares by expectation and maximisation, which never leaves the range from 0 to 1.
    Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 14 (2002).
    """
    found = rates.sum(axis=2)  # (R,K): how often a cell of the class gets a name
    conditional = rates / found[:, :, None]
    mixed = shares.copy()
    for _ in range(STEPS):
        expected = np.einsum("ri,rij->rj", mixed, conditional)
        ratio = np.divide(shares, expected, out=np.zeros_like(shares), where=expected > 0)
        mixed = mixed * np.einsum("rij,rj->ri", conditional, ratio)
    return _divide(mixed / found)


def _divide(weights: FloatArray) -> FloatArray:
    """Weights as shares that sum to one along the last axis."""
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), dtype=np.float64)
