"""KnownFeatures: what a network's features of known cells are like, class by class.

In another laboratory features lie elsewhere, and those of all classes have moved much alike. What
is known of a class therefore tells where it lies there, also where no cell of it was labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, BoolArray, FloatArray

AXES = 16  # directions of one network's features in which cells of a class differ most
SHRINKAGE = 0.2  # of the covariance, to equal spread in all directions
OWN_WEIGHT = 4.0  # labelled cells of a class that count as much as what was known of it


@dataclass(frozen=True)
class KnownFeatures:
    """The features of known cells of K classes, of M networks side by side.

    `means` (K,ΣF) are of the classes in `names`. Within a class the features of each network, of
    `widths` F, differ with one of the `variances` (M,) in all directions but AXES, which `axes`
    (AXES,ΣF) hold: their lengths say how much of the inverse variance is lost there.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    means: FloatArray
    axes: FloatArray
    variances: tuple[float, ...]

    def members(self, class_names: Sequence[str]) -> tuple[MemberFeatures, ...] | None:
        """The same of each network, in the order of a model's classes; None unless it knows one."""
        rows = [self.names.index(name) if name in self.names else -1 for name in class_names]
        is_known = np.array(rows) >= 0
        if not is_known.any():
            return None
        ends = np.cumsum(self.widths)[:-1]
        means, axes = (np.split(array, ends, axis=1) for array in (self.means, self.axes))
        return tuple(
            MemberFeatures(is_known, np.where(is_known[:, None], part[rows], np.nan), own, variance)
            for part, own, variance in zip(means, axes, self.variances, strict=True)
        )


@dataclass(frozen=True)
class MemberFeatures:
    """The features that one network has of C classes, of which some are known, `is_known` (C,).

    `means` (C,F) of the others are not a number. `axes` (AXES,F) and `variance` are as in
    KnownFeatures.
    """

    is_known: BoolArray
    means: FloatArray
    axes: FloatArray
    variance: float

    def shift(self, features: FloatArray, targets: AnyIntArray) -> FloatArray:
        """How far the classes of labelled features (N,F) have moved from the known ones, (F,)."""
        present = [k for k in np.unique(targets) if self.is_known[k]]
        if not present:
            return np.zeros(features.shape[1])
        moved = [features[targets == k].mean(axis=0) - self.means[k] for k in present]
        return np.asarray(np.mean(moved, axis=0))

    def discriminant(
        self, features: FloatArray, targets: AnyIntArray, cells: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The linear discriminant, weight (C,F) and bias (C,), of classes that have moved.

        The mean of a class lies between that of its labelled features (N,F), which are of so many
        `cells` (C,), and where it is if it moved as the others did. All classes must be known.
        Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7
        (1936).
        """
        means = self.means + self.shift(features, targets)
        for k in np.unique(targets):
            own = features[targets == k].mean(axis=0)
            means[k] = (cells[k] * own + OWN_WEIGHT * means[k]) / (cells[k] + OWN_WEIGHT)
        weight = (means - (means @ self.axes.T) @ self.axes) / self.variance
        return weight, -0.5 * (weight * means).sum(axis=1)


def fit_known_features(
    features: AnyFloatArray, targets: AnyIntArray, names: Sequence[str], widths: Sequence[int]
) -> KnownFeatures:
    """What features (N,ΣF) of known cells are like, of networks with so many features each.

    Of each class in `names` there must be one cell.
    """
    wide = np.asarray(features, dtype=np.float64)
    means = np.stack([wide[targets == k].mean(axis=0) for k in range(len(names))])
    fits = [_fit_axes(p) for p in np.split(wide - means[targets], np.cumsum(widths)[:-1], axis=1)]
    return KnownFeatures(
        tuple(names),
        tuple(widths),
        means,
        np.concatenate([axes for axes, _ in fits], axis=1),
        tuple(variance for _, variance in fits),
    )


def _fit_axes(residuals: FloatArray) -> tuple[FloatArray, float]:
    """The axes (AXES,F) and the variance of a network's features less their classes' means."""
    covariance = residuals.T @ residuals / len(residuals)
    width = len(covariance)
    even = np.trace(covariance) / width
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * even * np.eye(width)
    values, vectors = np.linalg.eigh(covariance)
    number = min(AXES, width - 1)
    variance = float(values[: width - number].mean())
    lengths = np.sqrt(1 - variance / values[width - number :])
    axes = np.zeros((AXES, width))
    axes[:number] = (vectors[:, width - number :] * lengths).T
    return axes, variance
