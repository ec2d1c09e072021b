"""Which cells of a folder to label: of each named class as many, and unlike one another."""

from __future__ import annotations

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray, IntArray

ROUNDS = 20


def choose_cells(features: AnyFloatArray, named: AnyIntArray, k: int, seed: int = 0) -> IntArray:
    """Indices of k of N cells, from features (N,F) and the classes (N,) that they are named.

    The named classes share the k cells equally, as far as they have so many. Of each class, its
    cells are parted into as many groups of like ones as it gives cells, and the one in the middle
    of each group is taken: they are unlike one another, and none is an outlier.
    """
    random = np.random.default_rng(seed)
    units = np.asarray(features, dtype=np.float64)
    units = units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    chosen = []
    for index, quota in share_out(named, k).items():
        own = np.flatnonzero(named == index)
        chosen.append(own[_middles(units[own], quota, random)])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def share_out(named: AnyIntArray, k: int) -> dict[int, int]:
    """How many of k cells each class gives: as equally as its number of cells allows."""
    classes, counts = np.unique(named, return_counts=True)
    quotas = np.zeros(len(classes), dtype=np.int64)
    for _ in range(min(k, len(named))):
        free = np.flatnonzero(quotas < counts)
        quotas[free[quotas[free].argmin()]] += 1
    return {int(c): int(q) for c, q in zip(classes, quotas, strict=True) if q}


def _middles(units: FloatArray, k: int, random: np.random.Generator) -> IntArray:
    """Indices of the cells nearest to the means of k groups, by k-means (Lloyd's algorithm)."""
    centres = units[_spread_out(units, k, random)]
    for _ in range(ROUNDS):
        nearest = _distances(units, centres).argmin(axis=1)
        for group in range(k):
            if (nearest == group).any():
                centres[group] = units[nearest == group].mean(axis=0)
    distances, chosen = _distances(units, centres), np.empty(k, dtype=np.int64)
    for group in range(k):
        chosen[group] = distances[:, group].argmin()
        distances[chosen[group]] = np.inf
    return chosen


def _spread_out(units: FloatArray, k: int, random: np.random.Generator) -> IntArray:
    """Indices of k cells, each the likelier the farther it is from those before.

    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    """
    chosen = [int(random.integers(len(units)))]
    gaps = np.full(len(units), np.inf)
    while len(chosen) < k:
        gaps = np.minimum(gaps, _distances(units, units[chosen[-1:]])[:, 0])
        gaps[chosen] = 0
        total = gaps.sum()
        free = np.setdiff1d(np.arange(len(units)), chosen)
        chance = gaps / total if total > 0 else None
        chosen.append(int(free[0]) if chance is None else int(random.choice(len(units), p=chance)))
    return np.array(chosen)


def _distances(units: FloatArray, centres: FloatArray) -> FloatArray:
    """Squared distances (N,K), never below 0."""
    squares = (units**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * units @ centres.T, 0))
