"""How far predictions can be trusted in a laboratory that no network was trained on.

A network is trained without each known laboratory in turn, and asked about that one's cells. What
these networks say of them is what one trained on all laboratories may be expected to say of the
cells of another, so temperature, prediction sets and limits for review are fitted to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, BoolArray, FloatArray, IntArray
from hemascope.uncertainty.conformal import class_thresholds, conformal_threshold
from hemascope.uncertainty.model import MISSED
from hemascope.uncertainty.temperature import fit_temperature, softmax

RIGHT = 0.95  # of the cells that are not sent to review
NORMAL_BLOOD = {
    "basophil": 0.005,
    "eosinophil": 0.035,
    "erythroblast": 0.0,
    "ig": 0.005,
    "lymphocyte": 0.28,
    "monocyte": 0.07,
    "neutrophil": 0.60,
    "platelet": 0.005,
}
"""Shares of classes among the cells of a normal blood count, with a few platelets in between."""
EVEN = 0.25  # share of the prior that is even over the classes, so that none is ruled out
STRENGTHS = tuple(np.arange(0, 1.01, 0.125).tolist())  # more than 1 would be no prior
LEAST_PER_CLASS = 10
LIMITS = (0.95, 0.98, 0.99, 1.0)  # shares of cells of the classes within the limit of distance


@dataclass(frozen=True)
class LeftOutCells:
    """What networks said of N cells of laboratories that each was trained without.

    `logits` are (N,C), and `distances` (N,) the standardised ones of OODDetector. `targets` (N,)
    are class indices, and -1 for cells of no class; `laboratories` (N,) say whose they are.
    """

    logits: AnyFloatArray
    distances: AnyFloatArray
    targets: AnyIntArray
    laboratories: tuple[str, ...]

    def select(self, chosen: BoolArray) -> LeftOutCells:
        """Some of the cells."""
        laboratories = tuple(np.array(self.laboratories)[chosen].tolist())
        return LeftOutCells(
            self.logits[chosen], self.distances[chosen], self.targets[chosen], laboratories
        )

    def of_classes(self) -> LeftOutCells:
        """The cells of the classes, the same number of each laboratory, drawn with a fixed seed."""
        random, names = np.random.default_rng(0), np.array(self.laboratories)
        groups = [
            random.permutation(np.flatnonzero((names == name) & (self.targets >= 0)))
            for name in dict.fromkeys(self.laboratories)
        ]
        fewest = min(map(len, groups))
        chosen = np.zeros(len(names), dtype=bool)
        chosen[np.concatenate([group[:fewest] for group in groups])] = True
        return self.select(chosen)


@dataclass(frozen=True)
class LeftOutFit:
    """What is fitted to LeftOutCells.

    `offsets` (C,) are added to the logits before they are divided by `temperature`. The other
    values are those of an UncertaintyModel and of its OODDetector.
    """

    offsets: tuple[float, ...]
    temperature: float
    set_threshold: float
    class_thresholds: tuple[float, ...]
    least_probability: float
    distance_limit: float

    def probabilities(self, cells: LeftOutCells) -> FloatArray:
        """Calibrated probabilities (N,C)."""
        return softmax(np.asarray(cells.logits) + np.array(self.offsets), self.temperature)

    def sent_to_review(self, cells: LeftOutCells) -> BoolArray:
        """Whether each cell is unsure or unlike the known ones, (N,)."""
        unsure = self.probabilities(cells).max(axis=1) < self.least_probability
        return np.asarray(unsure | (cells.distances > self.distance_limit))


def fit_left_out(cells: LeftOutCells, names: Sequence[str]) -> LeftOutFit:
    """Fits everything to cells of at least one left-out laboratory.

    The offsets are a multiple of the logarithm of NORMAL_BLOOD, a quarter of it spread evenly: a
    network that was trained on classes in nearly equal shares expects too many rare cells. The
    multiple is the one with the largest mean of the laboratories' balanced accuracies. The limit of
    distance is the one that leaves the fewest cells to review when the least probability is such
    that 95 % of the rest are right; where that cannot be, everything is sent to review.
    """
    even = cells.of_classes()
    prior = np.array([NORMAL_BLOOD.get(name, 0.0) for name in names])
    prior = (1 - EVEN) * prior / max(prior.sum(), 1e-12) + EVEN / len(names)
    unit = np.log(prior) - np.log(prior).mean()
    strength = max(STRENGTHS, key=lambda value: _mean_accuracy(cells, value * unit))
    offsets = strength * unit
    temperature = fit_temperature(even.logits + offsets, even.targets)
    probabilities = softmax(even.logits + offsets, temperature)
    fit = LeftOutFit(
        offsets=tuple(offsets.tolist()),
        temperature=temperature,
        set_threshold=conformal_threshold(probabilities, even.targets, MISSED),
        class_thresholds=tuple(class_thresholds(probabilities, even.targets, MISSED).tolist()),
        least_probability=1.0,
        distance_limit=0.0,
    )
    candidates = [
        _with_least_probability(fit, even, float(np.quantile(even.distances, share)))
        for share in LIMITS
    ]
    return min(candidates, key=lambda candidate: float(candidate.sent_to_review(even).mean()))


def _mean_accuracy(cells: LeftOutCells, offsets: FloatArray) -> float:
    """The mean of the laboratories' balanced accuracies."""
    predicted = (cells.logits + offsets).argmax(axis=1)
    names = np.array(cells.laboratories)
    return float(
        np.mean(
            [
                balanced_accuracy(predicted[names == name], cells.targets[names == name])
                for name in dict.fromkeys(cells.laboratories)
            ]
        )
    )


def balanced_accuracy(predicted: AnyIntArray, targets: AnyIntArray) -> float:
    """The mean recall of the classes with ten cells or more, of predictions (N,) among all."""
    classes, counts = np.unique(targets[targets >= 0], return_counts=True)
    recalls = [(predicted[targets == k] == k).mean() for k in classes[counts >= LEAST_PER_CLASS]]
    return float(np.mean(recalls)) if recalls else 0.0


def _with_least_probability(fit: LeftOutFit, cells: LeftOutCells, limit: float) -> LeftOutFit:
    """The fit with a limit of distance and the least probability that keeps 95 % right."""
    near = cells.select(cells.distances <= limit)
    probabilities = fit.probabilities(near)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == near.targets
    order: IntArray = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(shares >= RIGHT)
    least = float(confidence[order][enough[-1]]) if enough.size else 1.0
    return replace(fit, least_probability=least, distance_limit=limit)
