"""Out-of-distribution (OOD) scores: the less an image resembles the training cells, the larger.

A detector is fitted on the network's outputs for labelled images of the model's classes. It then
gives one score per image, (N,). Detectors that do not ship are in benchmarks/ood_detectors.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray

FOLDS = 10


@dataclass(frozen=True)
class LabelledOutputs:
    """A network's outputs for N labelled images."""

    logits: AnyFloatArray  # (N,C)
    features: AnyFloatArray  # (N,F)
    style_statistics: AnyFloatArray  # (N,T)
    targets: AnyIntArray  # (N,) class indices, -1 for an image of no class


@dataclass(frozen=True)
class Mahalanobis:
    """Squared Mahalanobis distance to the nearest class mean; features (N,F) → (N,).

    `whiten` (F,F) maps features to a space where the covariance within the classes is the identity,
    and `means` (C,F) lie in that space. Lee et al., "A simple unified framework for detecting
    out-of-distribution samples and adversarial attacks", NeurIPS 2018.
    """

    means: FloatArray
    whiten: FloatArray

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        gaps = (np.asarray(features, dtype=np.float64) @ self.whiten)[:, None] - self.means
        return np.asarray((gaps * gaps).sum(axis=2).min(axis=1))


def fit_mahalanobis(
    features: AnyFloatArray, targets: AnyIntArray, shrinkage: float = 0.01
) -> Mahalanobis:
    """Fits Mahalanobis to features (N,F) and class indices (N,).

    The covariance is (1 - shrinkage) · covariance + shrinkage · mean variance · identity, so that
    directions in which the training images hardly differ do not dominate the distance.
    """
    wide = np.asarray(features, dtype=np.float64)
    classes = np.unique(targets)
    means = np.stack([wide[targets == k].mean(axis=0) for k in classes])  # (C,F)
    rest = wide - means[np.searchsorted(classes, targets)]
    covariance = rest.T @ rest / len(rest)
    level = np.trace(covariance) / len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance))
    whiten = whitening_of(covariance)
    return Mahalanobis(means @ whiten, whiten)


def whitening_of(covariance: FloatArray) -> FloatArray:
    """The map (F,F) to a space where this covariance (F,F) is the identity."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors / np.sqrt(values))


@dataclass(frozen=True)
class Directions:
    """One minus the cosine of features to the nearest of the `means` (C,F), of unit length."""

    means: FloatArray

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        wide = np.asarray(features, dtype=np.float64)
        return np.asarray(1.0 - (wide @ self.means.T).max(axis=1) / _lengths(wide))


def fit_directions(features: AnyFloatArray, targets: AnyIntArray) -> Directions:
    """Fits Directions to features (N,F) and class indices (N,)."""
    return Directions(mean_directions(features, targets))


def mean_directions(features: AnyFloatArray, targets: AnyIntArray) -> FloatArray:
    """The mean direction of each class that there are targets (N,) of, in order, (≤C,F)."""
    units = _directions(features)
    means = [units[targets == k].mean(axis=0) for k in np.unique(targets)]
    return _directions(np.stack(means))


@dataclass(frozen=True)
class OODDetector:
    """OOD score of an image: above 1 for an unlike cell or an unlike style.

    A detector without `style` looks at the cell alone, whatever laboratory it comes from.

    Two distances are measured: `directions` on the features, which show the cell, and `style` on
    the style statistics, which show the colours and grain of the image. The logarithm of each is
    standardised with its mean, in `centre` (2,), and its standard deviation, in `spread` (2,), over
    calibration images that it was not fitted to. The score is above 1 if the mean of both exceeds
    `mean_limit`, or if the style alone exceeds `style_limit`: the second recognises another
    laboratory whose cells look like known ones.
    """

    directions: Directions
    style: Mahalanobis | None
    centre: tuple[float, float]
    spread: tuple[float, float]
    mean_limit: float
    style_limit: float

    def __call__(self, features: AnyFloatArray, style_statistics: AnyFloatArray) -> FloatArray:
        if self.style is None:
            return np.asarray(np.exp(self.standardise_cells(features) - self.mean_limit))
        means, styles = self.components(features, style_statistics)
        return np.asarray(np.exp(np.maximum(means - self.mean_limit, styles - self.style_limit)))

    def components(
        self, features: AnyFloatArray, style_statistics: AnyFloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The mean of both standardised distances, and that of the style alone, (N,) each."""
        assert self.style is not None
        logs = np.log(np.maximum(self.style(style_statistics), 1e-12))
        styles = (logs - self.centre[1]) / self.spread[1]
        return (self.standardise_cells(features) + styles) / 2, styles

    def standardise_cells(self, features: AnyFloatArray) -> FloatArray:
        """The standardised distances of the cells, (N,)."""
        logs = np.log(np.maximum(self.directions(features), 1e-12))
        return np.asarray((logs - self.centre[0]) / self.spread[0])


def fit_ood_detector(known: LabelledOutputs, share: float = 0.005) -> OODDetector:
    """Fits a detector to images of the model's classes; about `share` of others score above 1.

    Each image's distances are measured with what is fitted to nine tenths of the images without it:
    images are nearer to what was fitted to themselves, all the more the fewer there are.
    """
    logs = _held_out_logs(known)  # (2,N)
    centre, spread = logs.mean(axis=1), logs.std(axis=1)
    cells, styles = (logs - centre[:, None]) / spread[:, None]
    quantile = 1 - share / 2
    return OODDetector(
        fit_directions(known.features, known.targets),
        fit_mahalanobis(known.style_statistics, known.targets),
        (float(centre[0]), float(centre[1])),
        (float(spread[0]), float(spread[1])),
        mean_limit=float(np.quantile((cells + styles) / 2, quantile)),
        style_limit=float(np.quantile(styles, quantile)),
    )


def _held_out_logs(known: LabelledOutputs) -> FloatArray:
    """The logarithms (2,N) of the distances of features and of style statistics."""
    targets = np.asarray(known.targets)
    distances = np.empty((2, len(targets)))
    places = np.empty(len(targets), dtype=np.int64)
    places[np.argsort(targets, kind="stable")] = np.arange(len(targets))
    for fold in range(FOLDS):
        out = places % FOLDS == fold  # every tenth, class by class
        directions = fit_directions(known.features[~out], targets[~out])
        style = fit_mahalanobis(known.style_statistics[~out], targets[~out])
        distances[0, out] = directions(known.features[out])
        distances[1, out] = style(known.style_statistics[out])
    return np.asarray(np.log(np.maximum(distances, 1e-12)))


def fit_cell_detector(features: AnyFloatArray, targets: AnyIntArray, limit: float) -> OODDetector:
    """A detector of unlike cells alone, fitted to features (N,F) of cells of the classes (N,).

    Cells whose standardised distance exceeds `limit` score above 1.
    """
    directions = fit_directions(features, targets)
    logs = np.log(np.maximum(directions(features), 1e-12))
    centre, spread = (float(logs.mean()), 0.0), (float(logs.std()), 1.0)
    return OODDetector(directions, None, centre, spread, mean_limit=limit, style_limit=0.0)


def _directions(features: AnyFloatArray) -> FloatArray:
    wide = np.asarray(features, dtype=np.float64)
    return np.asarray(wide / _lengths(wide)[:, None])


def _lengths(wide: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(np.sqrt((wide * wide).sum(axis=1)), 1e-12))
