"""Figures of attributes and of stages of maturation, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hemascope.arrays import AnyIntArray, FloatArray
from hemascope.metrics.intervals import bootstrap, wilson
from hemascope.records import (
    AgreementMetrics,
    Estimate,
    MaturationMetrics,
    MeanMetrics,
)


def measure_agreement(
    truth: AnyIntArray, named: AnyIntArray
) -> tuple[tuple[AgreementMetrics, ...], MeanMetrics]:
    """How well A attributes of N cells are named: (N,A) as annotated, and (N,A) as named.

    Accuracy, the mean F1 over the values that occur in either, and Cohen's kappa, of each attribute
    and in the mean of all. All intervals are from the same resamples of cells. Cohen, "A
    coefficient of agreement for nominal scales", Educational and Psychological Measurement 20
    (1960).
    """
    n, attributes = truth.shape
    tables = [_indicators(truth[:, k], named[:, k]) for k in range(attributes)]

    def statistic(weights: FloatArray) -> FloatArray:
        parts = np.stack([_agreement(weights, *table) for table in tables])  # (A,R,3)
        return np.concatenate([*parts, parts.mean(axis=0)], axis=1)

    found = bootstrap(statistic, n)
    each = [found[3 * k : 3 * k + 3] for k in range(attributes + 1)]
    return (
        tuple(
            AgreementMetrics(wilson(int((truth[:, k] == named[:, k]).sum()), n), f1, kappa)
            for k, (_, f1, kappa) in enumerate(each[:-1])
        ),
        MeanMetrics(*each[-1]),
    )


def _indicators(truth: AnyIntArray, named: AnyIntArray) -> tuple[FloatArray, FloatArray]:
    """One column for each value that occurs: (N,V) as annotated, and as named."""
    values = np.union1d(truth, named)
    return (truth[:, None] == values).astype(float), (named[:, None] == values).astype(float)


def _agreement(weights: FloatArray, truth: FloatArray, named: FloatArray) -> FloatArray:
    """Accuracy, macro F1 and kappa (R,3) of samples that count the cells so often, (R,N)."""
    total = weights.sum(axis=1)
    both, of_truth, of_named = (weights @ part for part in (truth * named, truth, named))
    sums = of_truth + of_named
    f1 = np.divide(2 * both, sums, out=np.zeros_like(sums), where=sums > 0).mean(axis=1)
    accuracy = both.sum(axis=1) / total
    chance = (of_truth * of_named).sum(axis=1) / total**2
    beyond = 1 - chance
    undefined = np.full_like(beyond, np.nan)
    kappa = np.divide(accuracy - chance, beyond, out=undefined, where=beyond > 0)
    return np.stack([accuracy, f1, kappa], axis=1)


def measure_maturation(
    stages: Sequence[str], labelled: AnyIntArray, named: AnyIntArray
) -> MaturationMetrics:
    """How far from its stage each of N cells is named: labelled (N,) and named (N,) stages.

    A named stage of -1 is of a cell that is named as another class.
    """
    confusion = np.zeros((len(stages), len(stages) + 1), dtype=np.int64)
    np.add.at(confusion, (labelled, named), 1)
    within = named >= 0
    distances = np.abs(labelled - named)[within].astype(float)

    def mean_distance(weights: FloatArray) -> FloatArray:
        total = weights.sum(axis=1)
        undefined = np.full_like(total, np.nan)
        means = np.divide(weights @ distances, total, out=undefined, where=total > 0)
        return np.asarray(means[:, None])

    (distance,) = bootstrap(mean_distance, len(distances)) if len(distances) else (_NONE,)
    return MaturationMetrics(
        stages=tuple(stages),
        confusion=tuple(map(tuple, confusion.tolist())),
        right=wilson(int((labelled == named).sum()), len(labelled)),
        mean_distance=distance,
    )


_NONE = Estimate(None, 0, None, None)
